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
)

// leftOut is rollout.Observation's StableLeftOut. Only a hold keeps anybody from the candidate's pods.
func (r *Reconciler) leftOut(ctx context.Context, w *workload) string {
	s := w.status()
	var services corev1.ServiceList
	if w.deployment.Annotations[v1alpha1.HoldAnnotation] == "" || r.Client.List(ctx, &services, client.InNamespace(w.deployment.Namespace)) != nil {
		return "" // where nobody knows, stable serves
	}
	return leftOut(w.pods[s.Stable.Hash], w.pods[s.Candidate.Hash], services.Items)
}

// leftOut says which Service leads to the candidate's pods and to none of stable's any more, because it was changed together with
// the version: its selector to a new label, or its targetPort to a port's new name. Its clients would find nobody for as long as
// the candidate's gates are closed. Empty: stable is not left out.
//
// One port is enough, though stable may still answer at others: whoever asks at that one is lost. What only the candidate ever had
// is none of that: a Service to try it by, beside one that selects stable, or a port that it has besides all of stable's.
func leftOut(stable, candidate []*corev1.Pod, services []corev1.Service) string {
	if len(stable) == 0 || len(candidate) == 0 { // it is down then, or scaled to zero; or there is nobody to lead to
		return ""
	}
	before := slices.DeleteFunc(slices.Clone(services), func(s corev1.Service) bool { return !selects(s, stable) })
	for _, svc := range services {
		switch {
		case !selects(svc, candidate):
		case len(before) == 0:
			return fmt.Sprintf("Service %s selects no pod of the stable version any more", svc.Name)
		case !selects(svc, stable):
		case slices.ContainsFunc(svc.Spec.Ports, func(sp corev1.ServicePort) bool { return isNew(sp, stable[0], candidate[0]) }) &&
			slices.ContainsFunc(declared(stable[0]), func(p corev1.ContainerPort) bool { return isLost(p, candidate[0], before) }):
			return fmt.Sprintf("Service %s leads to a port that no pod of the stable version has", svc.Name)
		}
	}
	return ""
}

// isNew: the Service port leads to the candidate's pods alone, by a port's name.
func isNew(sp corev1.ServicePort, stable, candidate *corev1.Pod) bool {
	named := func(p corev1.ContainerPort) bool {
		return p.Name == sp.TargetPort.StrVal && orTCP(p.Protocol) == orTCP(sp.Protocol)
	}
	return sp.TargetPort.Type == intstr.String && slices.ContainsFunc(declared(candidate), named) && !slices.ContainsFunc(declared(stable), named)
}

// isLost: the candidate has no port of that name, and no Service leads to stable's, as long as it was led to by its name.
func isLost(p corev1.ContainerPort, candidate *corev1.Pod, services []corev1.Service) bool {
	if p.Name == "" || slices.ContainsFunc(declared(candidate), func(c corev1.ContainerPort) bool { return c.Name == p.Name }) {
		return false
	}
	leads := func(sp corev1.ServicePort) bool {
		return sp.TargetPort.StrVal == p.Name || sp.TargetPort.Type == intstr.Int && sp.TargetPort.IntVal == p.ContainerPort
	}
	return !slices.ContainsFunc(services, func(s corev1.Service) bool { return slices.ContainsFunc(s.Spec.Ports, leads) })
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
