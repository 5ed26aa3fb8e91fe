// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// wanted skips pods that must not have a sidecar.
func (in *injection) wanted() Skip {
	if in.pod.Annotations[v1alpha1.InjectAnnotation] == "false" {
		return skipf(SkipOptedOut, `the pod has the annotation %s: "false"; remove it to split this workload's requests`, v1alpha1.InjectAnnotation)
	}
	if mesh := otherMesh(in.pod); mesh != "" {
		return skipf(SkipOtherMesh, "the pod already carries the proxy of %s; two proxies can't capture the same ports, keep one of them out", mesh)
	}
	return Skip{}
}

// reachable skips pods whose network can't be captured.
func (in *injection) reachable() Skip {
	spec := &in.pod.Spec
	if spec.HostNetwork {
		return skipf(SkipHostNetwork, "the pod uses the node's network (hostNetwork), where ports can't be captured; use a pod network")
	}
	if spec.DNSPolicy == corev1.DNSDefault {
		return skipf(SkipDNS, "the pod asks the node's DNS (dnsPolicy: Default), so that its sidecar would not find Headgate; use ClusterFirst")
	}
	if spec.OS != nil && spec.OS.Name == corev1.Windows || spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows) {
		return skipf(SkipWindows, "the pod runs on Windows, which has no nftables")
	}
	return Skip{}
}

// otherMesh names the mesh whose proxy the pod already has; empty when there is none. The markers are
// those that the injectors of these projects leave on every pod they touched.
func otherMesh(pod *corev1.Pod) string {
	containers := map[string]string{
		"istio-proxy":      "Istio",
		"istio-init":       "Istio",
		"istio-validation": "Istio",
		"linkerd-proxy":    "Linkerd",
		"linkerd-init":     "Linkerd",
		"consul-dataplane": "Consul",
		"kuma-sidecar":     "Kuma",
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if mesh, ok := containers[list[i].Name]; ok {
				return mesh
			}
		}
	}
	for _, marker := range []struct{ annotation, mesh string }{
		{"sidecar.istio.io/status", "Istio"},
		{"linkerd.io/proxy-version", "Linkerd"},
		{"consul.hashicorp.com/connect-inject-status", "Consul"},
		{"kuma.io/sidecar-injected", "Kuma"},
	} {
		if pod.Annotations[marker.annotation] != "" {
			return marker.mesh
		}
	}
	return ""
}

// namesFree skips pods whose own containers or volumes have Headgate's names: the API refuses a name
// that occurs twice.
func (in *injection) namesFree() Skip {
	ours := func(name string) bool { return name == v1alpha1.PrepareContainer || name == v1alpha1.ProxyContainer }
	taken := func(what, name string) Skip {
		return skipf(SkipNameTaken, "the pod has %s of its own named %q; rename it", what, name)
	}
	for i := range in.pod.Spec.Containers {
		if name := in.pod.Spec.Containers[i].Name; ours(name) {
			return taken("a container", name)
		}
	}
	if in.before != nil {
		return Skip{}
	}
	for i := range in.pod.Spec.InitContainers {
		if name := in.pod.Spec.InitContainers[i].Name; ours(name) {
			return taken("an init container", name)
		}
	}
	for i := range in.pod.Spec.Volumes {
		if name := in.pod.Spec.Volumes[i].Name; name == v1alpha1.TokenVolume {
			return taken("a volume", name)
		}
	}
	return Skip{}
}

// tokensReadable skips pods whose app would lose its own tokens. The kubelet gives the files of a
// projected token to the user that *all* containers of the pod share, whatever mode the volume asks
// for; Headgate's containers run as other users, so the files would become root's, with that mode. An
// fsGroup, a mode that everybody may read, or an app that is root are no problem.
func (in *injection) tokensReadable() Skip {
	user := sharedUser(in.pod)
	if user == 0 || in.pod.Spec.SecurityContext != nil && in.pod.Spec.SecurityContext.FSGroup != nil {
		return Skip{}
	}
	for i := range in.pod.Spec.Volumes {
		v := &in.pod.Spec.Volumes[i]
		if v.Projected == nil || v.Projected.DefaultMode == nil || *v.Projected.DefaultMode&0o004 != 0 {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil || s.ClusterTrustBundle != nil || s.PodCertificate != nil {
				return skipf(SkipTokenMode, "user %d could no longer read the tokens of volume %q (defaultMode %#o) beside a sidecar with another user; set an fsGroup, or defaultMode 0444", user, v.Name, *v.Projected.DefaultMode)
			}
		}
	}
	return Skip{}
}

// sharedUser is the user that all containers of the pod, without Headgate's, state; 0 when they
// differ, one does not say, or it is root.
func sharedUser(pod *corev1.Pod) int64 {
	var shared *int64
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if isOwn(&list[i]) {
				continue
			}
			user := effectiveUser(pod, &list[i])
			if user == nil || shared != nil && *shared != *user {
				return 0
			}
			shared = user
		}
	}
	if shared == nil {
		return 0
	}
	return *shared
}

func effectiveUser(pod *corev1.Pod, c *corev1.Container) *int64 {
	if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
		return c.SecurityContext.RunAsUser
	}
	if pod.Spec.SecurityContext != nil {
		return pod.Spec.SecurityContext.RunAsUser
	}
	return nil
}

// smallEnough skips pods whose annotations leave no room for one more.
func (in *injection) smallEnough() Skip {
	if annotationBytes(in.out.Annotations) > maxAnnotationBytes {
		return skipf(SkipTooLarge, "the pod's annotations leave no room for %s; the API accepts 256 KiB in all", v1alpha1.InjectionAnnotation)
	}
	return Skip{}
}
