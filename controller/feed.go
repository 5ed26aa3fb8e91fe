// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	netutils "k8s.io/utils/net"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
	"github.com/headgate/headgate/xds"
)

// Configurations takes what the sidecars of each revision should be told; *server.Server does.
type Configurations interface {
	// Set wants this configuration for the sidecars of w's revision; equal content pushes nothing.
	Set(w xds.Workload) error
	// Forget drops a revision of which nobody knows a pod any more; sidecars that it still has are at rest.
	Forget(namespace, name, revision string)
}

// Feeder derives configurations from Rollout.status, pods and Services. It runs on every replica, and
// because weights come from the status alone, all replicas say the same.
type Feeder struct {
	Reconciler *Reconciler
	Sink       Configurations

	fed map[types.NamespacedName]map[string]types.UID // revisions fed, with their ReplicaSets' uids; one worker owns it
}

// Reconcile feeds one workload's revisions.
func (f *Feeder) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	w, ending, err := f.gather(ctx, req.NamespacedName)
	if err != nil {
		return ctrl.Result{}, err
	}
	var services corev1.ServiceList
	if err := f.Reconciler.Client.List(ctx, &services, client.InNamespace(req.Namespace)); err != nil {
		return ctrl.Result{}, fmt.Errorf("listing services of %q: %w", req.Namespace, err)
	}
	now := map[string]types.UID{}
	var errs []error
	if w != nil {
		for _, x := range w.configurations(services.Items) {
			now[x.Revision] = f.fed[req.NamespacedName][x.Revision]
			if rs := w.replicaSet(x.Revision); rs != nil {
				now[x.Revision] = rs.UID
			}
			// A revision that can't be configured must not keep another from its weight 0.
			if err := f.Sink.Set(x); err != nil {
				errs = append(errs, fmt.Errorf("configuring revision %s: %w", x.Revision, err))
			}
		}
	}
	f.forgetGone(req.NamespacedName, now)
	if err := errors.Join(errs...); err != nil {
		return ctrl.Result{}, err
	}
	if ending || w != nil && w.awaitsNode() {
		return ctrl.Result{RequeueAfter: lookAgain}, nil
	}
	return ctrl.Result{}, nil
}

// lookAgain is how often it is looked again while a node keeps a pod from requests, or pods end without their ReplicaSet:
// nothing tells the Feeder that a node is back, that a new one has come into the cache after its pod, or that such a pod is gone.
const lookAgain = time.Second

// gather adds to what the Reconciler sees the pods that are on their way out while their ReplicaSet is gone, and says whether
// there are any: that of a candidate which never was stable is deleted as soon as its last pod begins to end. What their sidecars
// were told holds to their end.
func (f *Feeder) gather(ctx context.Context, key types.NamespacedName) (w *workload, ending bool, err error) {
	if w, err = f.Reconciler.gather(ctx, key); err != nil || w == nil {
		return nil, false, err
	}
	for hash, uid := range f.fed[key] {
		if uid == "" || w.replicaSet(hash) != nil {
			continue
		}
		var list corev1.PodList
		if err := f.Reconciler.Client.List(ctx, &list, client.InNamespace(key.Namespace), client.MatchingFields{webhook.OwnerIndex: string(uid)}); err != nil {
			return nil, false, fmt.Errorf("listing pods of revision %s, which is gone: %w", hash, err)
		}
		for i := range list.Items {
			if pod := &list.Items[i]; pod.DeletionTimestamp != nil {
				w.pods[hash] = append(w.pods[hash], pod)
				ending = true
			}
		}
	}
	return w, ending, nil
}

func (f *Feeder) forgetGone(key types.NamespacedName, now map[string]types.UID) {
	for revision := range f.fed[key] {
		if _, fed := now[revision]; !fed {
			f.Sink.Forget(key.Namespace, key.Name, revision)
		}
	}
	if f.fed == nil {
		f.fed = map[types.NamespacedName]map[string]types.UID{}
	}
	f.fed[key] = now
	if len(now) == 0 {
		delete(f.fed, key)
	}
}

// configurations are those of all revisions that have an injected pod with an address: before that it is
// not known whether there is an IPv6 one, and that must not change once a sidecar was told.
func (w *workload) configurations(services []corev1.Service) []xds.Workload {
	captured := map[string][]v1alpha1.CapturedPort{}
	for hash, pods := range w.pods {
		if ports := capturedPorts(pods); ports != nil && haveAddress(pods) {
			captured[hash] = ports
		}
	}
	var out []xds.Workload
	for hash, ports := range captured {
		x := xds.Workload{Namespace: w.deployment.Namespace, Name: w.deployment.Name, Revision: hash, IPv6: hasIPv6(w.pods[hash])}
		x.Split = w.split(hash)
		for _, p := range ports {
			port := xds.Port{Number: uint32(p.Port), Protocol: protocolOf(p)}
			if s := x.Split; s != nil && (s.PeerIsStable || stableOnly(p, w.pods[hash], w.pods[s.Peer], services) == "") {
				port.Peer = peerPort(p, captured[s.Peer], w.pods[hash], w.pods[s.Peer], services)
			}
			x.Ports = append(x.Ports, port)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b xds.Workload) int { return cmp.Compare(a.Revision, b.Revision) })
	return out
}

// split is which other revision a revision's sidecars know, its share, and whether that is all that this one is there for;
// nil: all requests are served here.
func (w *workload) split(hash string) *xds.Split {
	s := w.status()
	if s.DeploymentUID != w.deployment.UID || s.Stable.Hash == "" {
		return nil
	}
	toStable := func(weight int32, over bool) *xds.Split {
		return &xds.Split{Peer: s.Stable.Hash, PeerIsStable: true, PeerWeight: uint32(weight), Over: over, Endpoints: w.endpoints(s.Stable.Hash)}
	}
	switch {
	case hash == s.Stable.Hash && s.Candidate.Hash != "":
		return &xds.Split{Peer: s.Candidate.Hash, PeerWeight: uint32(s.Weight), Endpoints: w.endpoints(s.Candidate.Hash)}
	case hash == s.Stable.Hash:
		return nil
	case hash == s.Candidate.Hash:
		return toStable(100-s.Weight, rollout.Over(&s))
	case w.neverOut(hash):
		return toStable(100, true)
	}
	return nil
}

// neverOut: the revision has been a candidate and is none any more, and while its pods end, somebody may still ask them, by a
// Service that publishes addresses which are not ready, or by their own. None of them has ever been open. One that is the
// template is about to be.
func (w *workload) neverOut(hash string) bool {
	out := func(pod *corev1.Pod) bool { return !webhook.HasGate(pod) || conditionTrue(pod, v1alpha1.GateCondition) }
	if len(w.pods[hash]) == 0 || slices.ContainsFunc(w.pods[hash], out) {
		return false
	}
	rs := w.replicaSet(hash)
	return rs == nil || !webhook.EqualTemplate(&rs.Spec.Template, &w.deployment.Spec.Template)
}

// endpoints are the pods of a revision that may get requests from sidecars of the other one.
func (w *workload) endpoints(hash string) []string {
	var out []string
	for _, pod := range w.pods[hash] {
		if servesPeers(pod) && w.nodeUp(pod.Spec.NodeName) {
			out = append(out, pod.Status.PodIP)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// servesPeers says whether a pod can get requests from sidecars of the other revision, if its node is up.
func servesPeers(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning && readyButGate(pod) &&
		pod.Labels[v1alpha1.InjectedLabel] == "true" && pod.Status.PodIP != ""
}

// awaitsNode says whether a pod of a split gets no requests only because of its node.
func (w *workload) awaitsNode() bool {
	for hash, pods := range w.pods {
		if w.split(hash) != nil && slices.ContainsFunc(pods, func(pod *corev1.Pod) bool {
			return servesPeers(pod) && !w.nodeUp(pod.Spec.NodeName)
		}) {
			return true
		}
	}
	return false
}

// capturedPorts are what the Pod webhook noted on the oldest pod of a revision. All of them have the same ports, but what
// Services say about a port changes. A listener does not change with it, because Envoy would end its connections, and
// requests that take longer than its drain time with them.
func capturedPorts(pods []*corev1.Pod) []v1alpha1.CapturedPort {
	pods = slices.SortedFunc(slices.Values(pods), func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	for _, pod := range pods {
		var injection v1alpha1.Injection
		if json.Unmarshal([]byte(pod.Annotations[v1alpha1.InjectionAnnotation]), &injection) == nil && len(injection.Ports) > 0 {
			return injection.Ports
		}
	}
	return nil
}

// haveAddress says whether any of the pods has an address yet.
func haveAddress(pods []*corev1.Pod) bool {
	return slices.ContainsFunc(pods, func(pod *corev1.Pod) bool { return pod.Status.PodIP != "" })
}

// hasIPv6 says whether the pods of a revision have an IPv6 address.
func hasIPv6(pods []*corev1.Pod) bool {
	for _, pod := range pods {
		for _, ip := range pod.Status.PodIPs {
			if netutils.IsIPv6String(ip.IP) {
				return true
			}
		}
	}
	return false
}

// protocolOf is what the Services said when the pod was created.
func protocolOf(p v1alpha1.CapturedPort) xds.Protocol {
	switch p.Protocol {
	case v1alpha1.ProtocolTCP:
		return xds.TCP
	case v1alpha1.ProtocolHTTP:
		return xds.HTTP
	}
	return xds.Auto
}

// peerPort is the other revision's port behind the same port of the same Service: numbers may differ
// between revisions when the Service targets a name. A port that no Service leads to has the same number
// there. 0: there is none. So too where two Services lead to this port, and to different ones there: a request does not
// say which of them it came by.
func peerPort(p v1alpha1.CapturedPort, others []v1alpha1.CapturedPort, pods, peers []*corev1.Pod, services []corev1.Service) uint32 {
	mine := servicePortsTo(pods, p, services)
	var found []uint32
	for _, o := range others {
		corresponds := len(mine) == 0 && o.Port == p.Port
		for _, a := range servicePortsTo(peers, o, services) {
			corresponds = corresponds || slices.ContainsFunc(mine, a.equal)
		}
		if corresponds {
			found = append(found, uint32(o.Port))
		}
	}
	if len(found) != 1 {
		return 0
	}
	return found[0]
}

// stableOnly is a Service that leads to this port of stable's pods, and selects none of the candidate's; empty: there is none.
// Its clients would otherwise meet pods that it does not select, and a request does not say by which Service it came.
func stableOnly(p v1alpha1.CapturedPort, stable, candidate []*corev1.Pod, services []corev1.Service) string {
	for i, svc := range services {
		if svc.Annotations[v1alpha1.PreviewAnnotation] == "true" {
			continue // it leads to one version on purpose, and is moved when it suits
		}
		if !selects(svc, candidate) && len(servicePortsTo(stable, p, services[i:i+1])) > 0 {
			return svc.Name
		}
	}
	return ""
}

// whyNotSplit says why requests to stable's pods can't go to the candidate's, for the end of a sentence about the candidate:
// the first of the ports of interest that has no peer there. Empty: every one has, and the reason is another.
func whyNotSplit(stable, candidate []*corev1.Pod, services []corev1.Service, ofInterest func(from []servicePort) bool) string {
	others := capturedPorts(candidate)
	for _, p := range capturedPorts(stable) {
		if protocolOf(p) == xds.TCP || !ofInterest(servicePortsTo(stable, p, services)) {
			continue
		}
		if service := stableOnly(p, stable, candidate, services); service != "" {
			return fmt.Sprintf("Service %s does not select its pods by their labels", service)
		}
		if peerPort(p, others, stable, candidate, services) == 0 {
			return fmt.Sprintf("no port of its pods corresponds to port %d of stable's", p.Port)
		}
	}
	return ""
}

func anyPort([]servicePort) bool { return true }

// ledTo: Services lead to the port, so that it has clients.
func ledTo(from []servicePort) bool { return len(from) > 0 }

// selects says whether a Service selects pods of one revision. They have the same labels, unless somebody has taken one off a
// pod, to look at it in peace; so one that is selected is enough.
func selects(service corev1.Service, pods []*corev1.Pod) bool {
	selector := labels.SelectorFromSet(service.Spec.Selector)
	return len(service.Spec.Selector) > 0 && slices.ContainsFunc(pods, func(pod *corev1.Pod) bool { return selector.Matches(labels.Set(pod.Labels)) })
}

// servicePort is a port of a Service. Its name alone says nothing: most Services call theirs http.
type servicePort struct {
	corev1.ServicePort

	service string
}

func (a servicePort) equal(b servicePort) bool {
	return a.service == b.service && a.Name == b.Name && a.Port == b.Port
}

// servicePortsTo are the Service ports that lead to a captured port of these pods.
func servicePortsTo(pods []*corev1.Pod, p v1alpha1.CapturedPort, services []corev1.Service) []servicePort {
	var out []servicePort
	for _, svc := range services {
		if !selects(svc, pods) {
			continue
		}
		for _, sp := range svc.Spec.Ports {
			if webhook.LeadsTo(sp, p) {
				out = append(out, servicePort{sp, svc.Name})
			}
		}
	}
	return out
}
