// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/controller"
)

// BenchmarkHistories measures how quickly random histories are played. A step is the turn of one actor: of the
// Deployment controller, the kubelets, a replica of Headgate and so on; seven are a second of simulated time.
func BenchmarkHistories(b *testing.B) {
	steps := 0
	for seed := int64(1); b.Loop(); seed++ {
		var w *world
		v, err := Play(Random(seed), Options{Break: func(began *world) { w = began }})
		if err != nil || v != nil {
			b.Fatalf("seed %d: %v %v", seed, v, err)
		}
		steps += w.taken
	}
	b.ReportMetric(float64(steps)/b.Elapsed().Seconds(), "steps/s")
}

// minuteOfLooks are the looks at each step of a measured rollout.
const minuteOfLooks = int(time.Minute / controller.LookInterval)

// BenchmarkRollout counts what Headgate writes to the API from an update of ten pods with the default policy to its
// end, when the analysis finds something new in each look and accepts each step after a minute: requests that write, and
// those that record events. A rollout has no part in another one's writes, so a hundred at once write a hundred times
// as much. Who asks and who answers is simulated; the time of an operation says nothing about a cluster.
func BenchmarkRollout(b *testing.B) {
	var n counts
	for b.Loop() {
		n.add(rollOut(b, minuteOfLooks))
	}
	b.ReportMetric(float64(n.writes)/float64(b.N), "writes/op")
	b.ReportMetric(float64(n.events)/float64(b.N), "events/op")
	b.ReportMetric(float64(n.looks)/float64(b.N), "looks/op")
	b.ReportMetric(n.lasted.Seconds()/float64(b.N), "lasts-sec")
}

// counts are of one rollout, or several.
type counts struct {
	writes, events, looks int
	lasted                time.Duration
}

func (c *counts) add(more counts) {
	c.writes, c.events, c.looks, c.lasted = c.writes+more.writes, c.events+more.events, c.looks+more.looks, c.lasted+more.lasted
}

// rollOut plays an update from a workload at rest until it is at rest again; each step is accepted after that many looks.
func rollOut(t testing.TB, looks int) (n counts) {
	t.Helper()
	w := newWorld()
	play := func(lines ...string) {
		for _, line := range lines {
			if err := w.do(line); err != nil || w.oracle.violation != nil {
				t.Fatalf("%s: %v %v", line, err, w.oracle.violation)
			}
		}
	}
	play("replicas 10", "create v1", "run 60s")
	for _, r := range w.replicas {
		r.client.tamper = func(client.Object) bool { n.writes++; return true }
		r.reconciler.Events = countEvents{&n.events}
	}
	began := w.api.now
	play("set-image v2")
	for step, inStep := int32(-1), 0; n.looks == 0 || w.record().Phase != v1alpha1.PhaseIdle; {
		if n.lasted = w.api.now.Sub(began); n.lasted > time.Hour {
			t.Fatalf("does not end: %s %s", w.record().Phase, brief(w.deployment()))
		}
		if s := w.record(); s.Step != step {
			step, inStep = s.Step, 0
		}
		inStep, n.looks = inStep+1, n.looks+1
		w.look(n.looks, inStep >= looks)
		play("run " + controller.LookInterval.String())
	}
	if v := w.record().Stable.Hash; v != "v2" {
		t.Fatalf("the rollout ended with %s", v)
	}
	return n
}

// look is one of the analysis, in which it sees what the last one did not, and wakes the controller.
func (w *world) look(looks int, accepted bool) {
	v := verdicts["Undecided"]
	if accepted {
		v = verdicts["Pass"]
	}
	v.Evidence = &v1alpha1.Evidence{Looks: int64(looks)}
	w.analysis.verdicts["v2"] = v
	for _, r := range w.replicas {
		r.news = true
	}
}

// countEvents counts what users would read.
type countEvents struct{ n *int }

// Eventf implements events.EventRecorder.
func (e countEvents) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {
	*e.n++
}

// A look of the analysis is one write; all else together is a few for ten pods, however long they are looked at.
func TestWritesOfARollout(t *testing.T) {
	short, long := rollOut(t, minuteOfLooks), rollOut(t, 5*minuteOfLooks)
	if more := long.looks - short.looks; more < 100 || long.writes-short.writes != more {
		t.Errorf("%d more looks were %d more writes", more, long.writes-short.writes)
	}
	if rest := short.writes - short.looks; rest < 10 || rest > 40 {
		t.Errorf("%d writes with %d looks", short.writes, short.looks)
	}
}
