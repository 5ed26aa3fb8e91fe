// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
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
		o.StableLeftOut = r.stableLeftOut(ctx, w, services.Items)
	}
}

// found are the pods that clients of a Service may find.
type found struct {
	stable, candidate []*corev1.Pod
	// version are the labels that the candidate's template gives all of its pods.
	version labels.Set
	// others are ready pods of the namespace that are neither's.
	others []*corev1.Pod
}

// stableLeftOut asks for the namespace's other pods only where stable is left out if none of them answers: at nearly every pass it is not.
func (r *Reconciler) stableLeftOut(ctx context.Context, w *workload, services []corev1.Service) string {
	s := w.status()
	f := found{stable: w.pods[s.Stable.Hash], candidate: w.pods[s.Candidate.Hash]}
	if rs := w.replicaSet(s.Candidate.Hash); rs != nil {
		f.version = rs.Spec.Template.Labels
	}
	if leftOut(f, services, s.StableServices) == "" {
		return ""
	}
	var pods corev1.PodList
	if r.Client.List(ctx, &pods, client.InNamespace(w.deployment.Namespace), client.UnsafeDisableDeepCopy) != nil {
		return "" // where nobody knows, stable is found
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		is := func(p *corev1.Pod) bool { return p.UID == pod.UID }
		if conditionTrue(pod, corev1.PodReady) && pod.DeletionTimestamp == nil && !slices.ContainsFunc(f.stable, is) && !slices.ContainsFunc(f.candidate, is) {
			f.others = append(f.others, pod)
		}
	}
	return leftOut(f, services, s.StableServices)
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
// has, when it was the last one's; nothing but its annotation tells it from one whose clients are lost. Nor is a Service that
// selects single pods, by a label that moves between them as a leader's does: that tells no version from another. And where
// pods of another workload answer, nobody is lost.
func leftOut(f found, services []corev1.Service, before []string) string {
	if len(f.stable) == 0 || len(f.candidate) == 0 { // it is down then, or scaled to zero; or there is nobody to lead to
		return ""
	}
	for _, svc := range services {
		switch {
		case svc.Spec.PublishNotReadyAddresses: // who asks there finds the candidate, its gates closed or not
		case svc.Annotations[v1alpha1.PreviewAnnotation] == "true", !selectsVersion(svc, f.version), !slices.Contains(before, svc.Name):
		case !selects(svc, f.stable):
			if !selects(svc, f.others) {
				return fmt.Sprintf("Service %s selects no pod of the stable version any more", svc.Name)
			}
		case slices.ContainsFunc(svc.Spec.Ports, func(sp corev1.ServicePort) bool {
			return slices.Contains(before, nameOf(svc, sp)) && f.onlyCandidateHas(svc, sp)
		}):
			return fmt.Sprintf("Service %s leads to a port that no pod of the stable version has", svc.Name)
		}
	}
	return ""
}

// onlyCandidateHas: of all pods that the Service selects, only the candidate's have the port that it leads to.
func (f found) onlyCandidateHas(svc corev1.Service, sp corev1.ServicePort) bool {
	other := func(pod *corev1.Pod) bool { return selects(svc, []*corev1.Pod{pod}) && reaches(sp, pod) }
	return reaches(sp, f.candidate[0]) && !reaches(sp, f.stable[0]) && !slices.ContainsFunc(f.others, other)
}

// selectsVersion says whether a Service selects all pods of a version, by the labels of its template.
func selectsVersion(svc corev1.Service, template labels.Set) bool {
	return len(svc.Spec.Selector) > 0 && labels.SelectorFromSet(svc.Spec.Selector).Matches(template)
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
