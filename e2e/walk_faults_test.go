// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/e2e/faults"
	"github.com/headgate/headgate/e2e/faults/proxyfault"
	"github.com/headgate/headgate/e2e/harness"
)

// fault is something to mend.
type fault struct {
	what string
	// part of Headgate that it is about, faults.ControlPlane or faults.Prometheus, or one of those below.
	part string
	// mend says whether it is: what the user wants may be refused while something else is broken.
	mend func() bool
	// until is the move after which it is mended.
	until int
}

// Parts that are none of Headgate's.
const (
	// answersOfPrometheus is what only this workload's policy notices.
	answersOfPrometheus = "answers of Prometheus"
	aSidecar            = "a sidecar"
	// theUser wants it so.
	theUser = "the user"
)

func (w *walk) faults() []draw {
	all := []draw{
		{"disconnect a sidecar", w.disconnect, 2},
		{"kill the leader", w.killLeader, 0}, {"freeze the leader", w.freezeLeader, 0}, {"freeze all replicas", w.freezeAll, 0},
		{"another certificate", w.certificate(faults.RotateCertificate), 0},
		{"the certificate expires", w.certificate(faults.ExpireCertificate), 0},
		{"another CA", w.replaceCA, 0},
		{"restart the API server", w.restart("kube-apiserver"), 0},
		{"restart the kubelet", w.restart("kubelet"), 0}, // pods get new tokens
		{"no control plane", w.away(faults.ControlPlane), 0}, {"no Prometheus", w.away(faults.Prometheus), 0},
		{"a Prometheus that can't be trusted", w.unreliablePrometheus, 0},
		{"the Pod webhook never answers", w.hang(faults.PodWebhook), 0},
		{"the Deployment webhook never answers", w.hang(faults.DeploymentWebhook), 0},
	}
	if w.kill {
		all = append(all, draw{"kill an Envoy", w.killEnvoy, 3})
	}
	if w.apiServer != nil {
		all = append(all, draw{"an API server that can't be trusted", w.unreliableAPIServer, 3})
	}
	return all
}

// breaks notes a fault, which lasts for one to three moves.
func (w *walk) breaks(f fault) {
	if f.part != theUser {
		w.say("%s", f.what)
	}
	f.until = w.moved + w.lasts
	w.broken = append(w.broken, f)
}

func always(mend func()) func() bool {
	return func() bool {
		mend()
		return true
	}
}

// mend mends the faults that are due.
func (w *walk) mend(due func(fault) bool) {
	var left []fault
	for _, f := range w.broken {
		if due(f) && f.mend() {
			w.say("mended: %s", f.what)
		} else {
			left = append(left, f)
		}
	}
	w.broken = left
}

// suffers says whether something about a part is broken.
func (w *walk) suffers(part string) bool {
	return slices.ContainsFunc(w.broken, func(f fault) bool { return f.part == part })
}

// trouble says whether anything is broken that people's commands may be refused for.
func (w *walk) trouble() bool {
	return slices.ContainsFunc(w.broken, func(f fault) bool { return f.part != theUser })
}

func (w *walk) disconnect(string) {
	if p := w.pod(harness.ReadyButGated); p != nil {
		how := pick(w.rand, []faults.Network{faults.Cut, faults.HalfOpen, faults.Slow})
		mend := faults.Disconnect(w.Case, p, how)
		w.deafSince()
		w.breaks(fault{what: fmt.Sprintf("the sidecar of %s is %s", p.Name, how), part: aSidecar, mend: always(mend)})
	}
}

// killEnvoy kills that of any pod. A candidate's peers send what they had begun to their own app, all but what was halfway
// back. Clients of a stable pod talk to its Envoy itself, as natively they talk to the app: what it was in the middle of is
// lost, and what comes until it is there again. See spare.
func (w *walk) killEnvoy(what string) {
	p := w.pod(harness.ReadyButGated)
	if p == nil {
		return
	}
	s := spare{from: time.Now(), why: what, requests: 1}
	if harness.Ready(p) {
		s.requests = requestsWithin(len(w.loads), unreadyWithin)
		w.gone++ // for as long as its sidecar is away
	}
	faults.Kill(w.Case, faults.Envoy(p))
	s.to = time.Now().Add(envoyAway)
	w.spares = append(w.spares, s)
	w.say("%s: %s", what, p.Name)
}

// leader is the process that leads, when all is well with the control plane; nil when it is not.
func (w *walk) leader() *faults.Process {
	if w.suffers(faults.ControlPlane) {
		return nil
	}
	faults.AwaitReady(w.Case, faults.ControlPlane)
	_, pod := faults.Leader(w.Case, "")
	p := faults.Replica(pod)
	return &p
}

func (w *walk) killLeader(what string) {
	if leader := w.leader(); leader != nil {
		faults.Kill(w.Case, *leader)
		w.say("%s: %s", what, leader.Pod.Name)
	}
}

func (w *walk) freezeLeader(string) {
	if leader := w.leader(); leader != nil {
		mend := faults.Freeze(w.Case, *leader)
		w.deafSince()
		w.breaks(fault{what: "the leader is frozen: " + leader.Pod.Name, part: faults.ControlPlane, mend: always(mend)})
	}
}

// freezeAll leaves connections to everything that never answer: webhooks, and streams of sidecars.
func (w *walk) freezeAll(what string) {
	if w.leader() == nil {
		return
	}
	var pods corev1.PodList
	of := []client.ListOption{client.InNamespace(harness.SystemNamespace), client.MatchingLabels{"app.kubernetes.io/name": faults.ControlPlane}}
	if err := w.Client.List(w.Ctx, &pods, of...); err != nil {
		w.T.Fatalf("listing the control plane's pods: %v", err)
	}
	var thaw []func()
	for i := range pods.Items {
		if p := &pods.Items[i]; harness.ReadyButGated(p) {
			thaw = append(thaw, faults.Freeze(w.Case, faults.Replica(p)))
		}
	}
	w.deafSince()
	w.breaks(fault{what: what, part: faults.ControlPlane, mend: func() bool {
		for _, thaw := range thaw {
			thaw()
		}
		faults.AwaitReady(w.Case, faults.ControlPlane)
		return true
	}})
}

func (w *walk) certificate(replace func(*harness.Case)) func(string) {
	return func(what string) {
		if !w.suffers(faults.ControlPlane) { // it is the leader who makes one
			replace(w.Case)
			w.say("%s", what)
		}
	}
}

// replaceCA does so as often as pods may live through it.
func (w *walk) replaceCA(what string) {
	const most = 4
	if w.cas == most || w.suffers(faults.ControlPlane) {
		return
	}
	w.cas++
	faults.ReplaceCA(w.Case)
	w.say("%s", what)
}

// restart kills a component of the cluster, where that is possible.
func (w *walk) restart(component string) func(string) {
	return func(what string) {
		if component == "kubelet" {
			w.awaitKnown()
		}
		r, local := w.RestartComponents(w.Ctx, component)
		if r.Exit != 0 {
			w.T.Fatal(r)
		}
		if local {
			w.say("%s", what)
		}
	}
}

// awaitKnown waits until a kubelet that starts finds all pods that serve older than ten seconds. It takes younger ones for
// new, and for not ready until it has asked, on clusters without Headgate too.
func (w *walk) awaitKnown() {
	var pods corev1.PodList
	if err := w.Client.List(w.Ctx, &pods, client.InNamespace(w.Namespace)); err != nil {
		w.T.Fatalf("listing pods: %v", err)
	}
	var youngest time.Time
	for i := range pods.Items {
		for _, s := range pods.Items[i].Status.ContainerStatuses {
			if r := s.State.Running; s.Ready && r != nil && r.StartedAt.After(youngest) {
				youngest = r.StartedAt.Time
			}
		}
	}
	select {
	case <-time.After(time.Until(youngest.Add(12 * time.Second))): // its time has whole seconds
	case <-w.Ctx.Done():
	}
}

func (w *walk) away(part string) func(string) {
	return func(what string) {
		if w.suffers(part) {
			return
		}
		if part == faults.ControlPlane {
			w.deafSince()
		}
		w.breaks(fault{what: what, part: part, mend: always(faults.Away(w.Case, part))})
	}
}

// hang has a webhook time out at every call: updates are refused, or pods come without what it would add to them.
func (w *walk) hang(webhook faults.Webhook) func(string) {
	return func(what string) {
		if !w.suffers(faults.ControlPlane) {
			w.breaks(fault{what: what, part: faults.ControlPlane, mend: always(faults.Hang(w.Case, webhook))})
		}
	}
}

func (w *walk) unreliablePrometheus(string) {
	if w.suffers(answersOfPrometheus) {
		return
	}
	how := pick(w.rand, []unreliable{
		{"Prometheus answers nonsense", proxyfault.Faults{NaN: true}},
		{"Prometheus' counters begin again", proxyfault.Faults{Reset: true}},
		{"Prometheus is slow", proxyfault.Faults{Latency: metav1.Duration{Duration: 5 * time.Second}}},
		{"Prometheus refuses connections", proxyfault.Faults{AwayFor: metav1.Duration{Duration: time.Hour}}},
	})
	w.prometheus.Set(how.faults)
	w.breaks(fault{what: how.what, part: answersOfPrometheus, mend: always(func() { w.prometheus.Set(proxyfault.Faults{}) })})
}

// unreliable is how a server is.
type unreliable struct {
	what   string
	faults proxyfault.Faults
}

// unreliableAPIServer refuses writes of the control plane, or everything, or is slow. Not so slow that pods would start
// without sidecars, which would tell nothing of rollouts: of the 5 s that the API server waits for the Pod webhook, up to four
// reads one after the other may need some (the namespace, the ReplicaSet, its Deployment, the ReplicaSet again), so that
// 2 s each are too long. Stable is up when the API server becomes slow in the case about 2 s, in faults_test.go.
func (w *walk) unreliableAPIServer(string) {
	if w.suffers(faults.ControlPlane) {
		return
	}
	how := pick(w.rand, []unreliable{
		{"the API server refuses every third write", proxyfault.Faults{Every: 3, Statuses: refusals}},
		{"the API server is slow", proxyfault.Faults{Latency: metav1.Duration{Duration: 700 * time.Millisecond}}},
		{"the API server refuses connections of the control plane", proxyfault.Faults{AwayFor: metav1.Duration{Duration: time.Hour}}},
	})
	w.apiServer.Set(how.faults)
	w.deafSince()
	w.breaks(fault{what: how.what, part: faults.ControlPlane, mend: func() bool {
		w.apiServer.Set(proxyfault.Faults{})
		faults.Hurry(w.Case)
		faults.AwaitReady(w.Case, faults.ControlPlane)
		return true
	}})
}
