// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

// observeServices notes which Services lead to which revision's pods, and whether stable is left out. It reads the cache's own
// objects, at every pass.
func (r *Reconciler) observeServices(ctx context.Context, w *workload, o *rollout.Observation) {
	var services corev1.ServiceList
	if r.Client.List(ctx, &services, client.InNamespace(w.deployment.Namespace), client.UnsafeDisableDeepCopy) != nil {
		return // where nobody knows, stable serves
	}
	for i := range o.Revisions {
		if pods := w.pods[o.Revisions[i].Hash]; len(pods) > 0 {
			o.Revisions[i].Services = leadingTo(pods, services.Items)
		}
	}
	if w.deployment.Annotations[v1alpha1.HoldAnnotation] != "" { // only a hold keeps anybody from the candidate's pods
		s := w.status()
		o.StableLeftOut = leftOut(w.pods[s.Stable.Hash], w.pods[s.Candidate.Hash], services.Items, s.StableServices)
	}
}

// leadingTo names the Services that lead to pods of a revision, and those of their ports that lead to one of the pods'.
func leadingTo(pods []*corev1.Pod, services []corev1.Service) []string {
	var out []string
	for _, svc := range services {
		if !selects(svc, pods) {
			continue
		}
		out = append(out, svc.Name)
		for _, sp := range svc.Spec.Ports {
			if reaches(sp, pods[0]) {
				out = append(out, nameOf(svc, sp))
			}
		}
	}
	return out
}

// leftOut says which Service has led to stable's pods and leads to the candidate's alone now, because it was changed together
// with the version: its selector to a new label, its targetPort to another port. Its clients would find nobody for as long as
// the candidate's gates are closed. Empty: stable is not left out.
//
// One port is enough, though stable may still answer at others: whoever asks at that one is lost. What never led to stable is
// none of that: a Service to try the candidate by, or a port that only it has. One that follows the versions to try each by
// has, when it was the last one's; nothing but its annotation tells it from one whose clients are lost.
func leftOut(stable, candidate []*corev1.Pod, services []corev1.Service, before []string) string {
	if len(stable) == 0 || len(candidate) == 0 { // it is down then, or scaled to zero; or there is nobody to lead to
		return ""
	}
	for _, svc := range services {
		switch {
		case svc.Spec.PublishNotReadyAddresses: // who asks there finds the candidate, its gates closed or not
		case svc.Annotations[v1alpha1.PreviewAnnotation] == "true", !selects(svc, candidate), !slices.Contains(before, svc.Name):
		case !selects(svc, stable):
			return fmt.Sprintf("Service %s selects no pod of the stable version any more", svc.Name)
		case slices.ContainsFunc(svc.Spec.Ports, func(sp corev1.ServicePort) bool {
			return slices.Contains(before, nameOf(svc, sp)) && reaches(sp, candidate[0]) && !reaches(sp, stable[0])
		}):
			return fmt.Sprintf("Service %s leads to a port that no pod of the stable version has", svc.Name)
		}
	}
	return ""
}

// nameOf is a Service port in RolloutStatus.StableServices: its clients know it by that.
func nameOf(svc corev1.Service, sp corev1.ServicePort) string {
	return fmt.Sprintf("%s:%d/%s", svc.Name, sp.Port, orTCP(sp.Protocol))
}

// reaches: the Service port leads to a port that the pod declares, or, by a number, to one that declares nothing: that may
// listen anywhere. Who declares some is taken at his word.
func reaches(sp corev1.ServicePort, pod *corev1.Pod) bool {
	ports := declared(pod)
	if sp.TargetPort.Type == intstr.Int && len(ports) == 0 {
		return true
	}
	return slices.ContainsFunc(ports, func(p corev1.ContainerPort) bool {
		return orTCP(p.Protocol) == orTCP(sp.Protocol) && webhook.Targets(sp, p.ContainerPort, p.Name)
	})
}

// declared are the ports by whose names Services find a pod: also those of init containers that stay.
func declared(pod *corev1.Pod) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	for _, c := range pod.Spec.Containers {
		out = append(out, c.Ports...)
	}
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c.Ports...)
		}
	}
	return out
}

// orTCP is a protocol or its default.
func orTCP(p corev1.Protocol) corev1.Protocol {
	return cmp.Or(p, corev1.ProtocolTCP)
}
