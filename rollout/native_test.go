// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// settle lets everybody but Headgate's controller do one round: the Deployment controller, the
// ReplicaSets, kubelets and sidecars.
func (w *world) settle() {
	if !w.asleep {
		w.native()
	}
	for _, v := range w.versions {
		w.replicate(v)
		for _, p := range v.pods {
			w.run(p)
		}
	}
	w.acknowledge()
	w.watchStable()
}

// native is one pass of the Deployment controller, as it was measured and as its source has it: scale
// in proportion when N changed, else (unless paused) up within maxSurge, and down within maxUnavailable,
// pods that are not ready first.
func (w *world) native() {
	target := w.version(w.template)
	target.exists = true
	if w.noted != w.n {
		w.proportional(target)
		w.noted = w.n
	}
	for _, v := range w.versions {
		if v == target {
			v.gate = w.gate // the annotation is copied, also when it changes
		}
	}
	if w.paused {
		return
	}
	surge, unavailable := share(w.fields.MaxSurge, w.n, true), share(w.fields.MaxUnavailable, w.n, false)
	if w.fields.StrategyType == "Recreate" {
		surge, unavailable = 0, w.n
	}
	if surge+unavailable == 0 {
		unavailable = 1
	}
	total, available := int32(0), int32(0)
	for _, v := range w.versions {
		total += v.size
		available += v.ready()
	}
	if target.size > w.n {
		target.size = w.n
	} else if more := min(w.n-target.size, w.n+surge-total); more > 0 {
		target.size += more
		return
	}
	spare := total - (w.n - unavailable) - (target.size - target.ready())
	for _, unreadyFirst := range []bool{true, false} {
		for _, v := range w.versions {
			if v == target || spare <= 0 {
				continue
			}
			less := min(spare, v.size)
			if unreadyFirst {
				less = min(less, v.size-v.ready())
			} else {
				less = min(less, max(0, available-(w.n-unavailable)))
				available -= less
			}
			v.size -= less
			spare -= less
		}
	}
}

// proportional spreads a change of N over all versions, with what is left to the largest one.
func (w *world) proportional(target *version) {
	var active []*version
	total := int32(0)
	for _, v := range w.versions {
		if v.size > 0 {
			active = append(active, v)
			total += v.size
		}
	}
	allowed := w.n
	if w.n > 0 && len(active) > 1 {
		allowed += share(w.fields.MaxSurge, w.n, true)
	}
	if len(active) == 0 {
		target.size = w.n
		return
	}
	slices.SortStableFunc(active, func(a, b *version) int { return int(b.size - a.size) })
	left := allowed
	for _, v := range active {
		v.size = allowed * v.size / total
		left -= v.size
	}
	active[0].size += left
}

func share(v *intstr.IntOrString, n int32, up bool) int32 {
	if v == nil {
		return 0
	}
	s, err := intstr.GetScaledValueFromIntOrPercent(v, int(n), up)
	if err != nil {
		return 0
	}
	return int32(s)
}

// replicate makes the pods that the size asks for. Those that are not ready go first.
func (w *world) replicate(v *version) {
	slices.SortStableFunc(v.pods, func(a, b *pod) int { return rank(a) - rank(b) })
	if len(v.pods) > int(v.size) {
		v.pods = v.pods[:v.size]
	}
	if v.trouble == "quota" && len(v.pods) < int(v.size) {
		if v.quota.IsZero() {
			v.quota = w.now
		}
		return
	}
	v.quota = time.Time{}
	for len(v.pods) < int(v.size) {
		v.made++
		p := &pod{trouble: v.trouble, injected: !w.podWebhookDown, Pod: rollout.Pod{
			Name: fmt.Sprintf("%s-%d", v.name, v.made), CreatedAt: w.now, NodeReady: true,
			Gated: w.gates(v) && !w.podWebhookDown,
		}}
		if v.trouble == "bare" { // the Pod webhook can't give it a sidecar
			p.injected, p.NoSidecar = false, "PortTaken: the app declares port 15601"
		}
		v.pods = append(v.pods, p)
	}
}

func rank(p *pod) int {
	switch {
	case p.Ready:
		return 0
	case p.ReadyButGate:
		return 1
	}
	return 2
}

// gates is the Pod webhook: it obeys the ReplicaSet; without a decision there, stable is open.
func (w *world) gates(v *version) bool {
	if v.gate != "" {
		return v.gate == v1alpha1.GateClosed
	}
	return w.status.DeploymentUID == w.uid && w.status.Stable.Hash != "" && w.status.Stable.Hash != v.name
}

// run is the kubelet: a pod is ready two seconds after it was made, but for what it suffers from.
func (w *world) run(p *pod) {
	since := func(problem rollout.PodProblem, message string) {
		if p.Problem != problem {
			p.Problem, p.Message, p.ProblemSince = problem, message, w.now
		}
	}
	healthy := !p.startedAt.IsZero() || w.now.Sub(p.CreatedAt) >= 2*time.Second // the clock may have been set back
	p.NodeReady = true
	switch p.trouble {
	case "":
		p.Problem, p.Message, p.ProblemSince = "", "", time.Time{}
	case "crash":
		healthy = false
		p.Restarts = int32(w.now.Sub(p.CreatedAt) / (10 * time.Second))
		since(rollout.ProblemCrashLoop, "exit code 1")
	case "oom":
		since(rollout.ProblemOOMKilled, "")
	case "image":
		healthy = false
		since(rollout.ProblemImagePull, "manifest unknown")
	case "config":
		healthy = false
		since(rollout.ProblemConfiguration, `secret "db" not found`)
	case "noroom":
		healthy = false
		since(rollout.ProblemUnschedulable, "0/3 nodes are available: insufficient cpu")
	case "unready":
		healthy = false
	case "nodelost":
		healthy, p.NodeReady = false, false
	}
	if healthy && p.startedAt.IsZero() {
		p.startedAt = w.now
	}
	switch {
	case healthy:
		p.LostReadySince = time.Time{}
	case !p.startedAt.IsZero() && p.LostReadySince.IsZero():
		p.LostReadySince = w.now
	}
	p.ReadyButGate = healthy
	p.Ready = healthy && (!p.Gated || p.GateOpen)
}

// acknowledge is the xDS server and the sidecars: all that are connected take what the record says, but
// those that a story has silenced. What is in force in one of these is not known any more once something
// else is wanted.
func (w *world) acknowledge() {
	if w.xdsDown {
		return
	}
	for _, v := range w.versions {
		for _, p := range v.pods {
			if p.startedAt.IsZero() || p.cut {
				continue
			}
			wanted := ack{}
			if s := w.status; s.Candidate.Hash != "" && (v.name == s.Stable.Hash || v.name == s.Candidate.Hash) {
				wanted = ack{s.Candidate.Hash, s.Weight, v.name == s.Candidate.Hash && (rollout.Over(&s) || p.lags)}
			}
			if p.silent && p.acked != wanted {
				wanted = ack{}
			}
			p.acked = wanted
		}
	}
}

// watchStable notes since when stable has nobody.
func (w *world) watchStable() {
	stable := w.status.Stable.Hash
	if stable == "" || w.n == 0 || w.version(stable).ready() > 0 {
		w.downSince = time.Time{}
	} else if w.downSince.IsZero() {
		w.downSince = w.now
	}
}

func (v *version) ready() (n int32) {
	for _, p := range v.pods {
		if p.Ready {
			n++
		}
	}
	return n
}

// complete is what the native controller calls complete.
func (w *world) complete() bool {
	for _, v := range w.versions {
		if v.name == w.template && (v.size != w.n || v.ready() != w.n) || v.name != w.template && v.size > 0 {
			return false
		}
	}
	return !w.asleep
}
