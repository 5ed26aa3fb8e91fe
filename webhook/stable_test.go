// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
)

// emptied is a ReplicaSet that the native controller has scaled to nothing.
func emptied(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = ptr[int32](0) }

// notAvailable: its pods are ready, and minReadySeconds is not over.
func notAvailable(rs *appsv1.ReplicaSet) { rs.Status.AvailableReplicas = 0 }

// serving is a ReplicaSet with so many pods that serve, each edited.
func serving(version string, n int32, gate v1alpha1.Gate, edits ...func(*corev1.Pod)) []client.Object {
	rs := replicaSet(version, n, ownedBy(testUID), rsGate(gate))
	return append(podsOf(rs, n, edits...), rs)
}

func podsOf(rs *appsv1.ReplicaSet, n int32, edits ...func(*corev1.Pod)) (out []client.Object) {
	for i := range n {
		p := stablePod(fmt.Sprintf("%s-%d", rs.Name, i), append(edits, ownedByReplicaSet(rs))...)
		out = append(out, &p)
	}
	return out
}

// shopOf is a managed workload with the ReplicaSets and pods given, and nothing else.
func shopOf(groups ...[]client.Object) []client.Object {
	objects := without[*appsv1.ReplicaSet](without[*corev1.Pod](shop()))
	for _, g := range groups {
		objects = append(objects, g...)
	}
	return objects
}

// An update that comes on top of one that is still going out is judged, if anything serves.
func TestUpdatesOnTopOfOneThatIsNotComplete(t *testing.T) {
	gone := []client.Object{replicaSet("v1", 0, ownedBy(testUID), rsGate(open), emptied)}
	ending := func(p *corev1.Pod) { terminating(p); p.Finalizers = []string{"test"} }
	leaving := append(podsOf(replicaSet("v1", 0, ownedBy(testUID)), 1, ending), gone...)
	v3 := deployment("v3", gated(open))
	const held, instead = "held as a canary rollout", "compared with the version that was let out and serves most"
	cases := map[string]struct {
		objects []client.Object
		record  []func(*v1alpha1.Rollout)
		wantK   int32 // 0: not held
		want    string
	}{
		"nothing of stable is left, two others serve":    {objects: shopOf(gone, serving("v2", 2, open), serving("v3", 1, open)), wantK: 1, want: instead},
		"stable's last pod is ending":                    {objects: shopOf(leaving, serving("v2", 2, open), serving("v3", 1, open)), wantK: 1, want: instead},
		"stable's ReplicaSet is gone":                    {objects: shopOf(serving("v3", 2, open)), wantK: 1, want: instead},
		"one pod of stable serves":                       {objects: shopOf(serving("v1", 1, open), serving("v2", 2, open)), wantK: 5, want: held},
		"stable has been down for long, another serves":  {objects: shopOf(serving("v1", 1, open, unready(time.Minute)), serving("v2", 2, open)), wantK: 1, want: instead},
		"stable has been down for long, nothing else is": {objects: shopOf(serving("v1", 1, open, unready(time.Minute))), want: "no pod of the stable version was available"},
		"nothing serves":                                 {objects: shopOf(gone, serving("v3", 0, open)), want: "the stable revision has no pods"},
		"only a rejected version serves": {
			objects: shopOf(gone, serving("v2", 2, open)), record: []func(*v1alpha1.Rollout){rejected("v2", noon)}, want: "the stable revision has no pods",
		},
		"a rejected version that was let out all the same": {
			objects: shopOf(gone, serving("v2", 2, open)), wantK: 1, want: instead,
			record: []func(*v1alpha1.Rollout){rejected("v2", noon), trying("v2", v1alpha1.PhasePromoting)},
		},
		"only a version that was not let out": {objects: shopOf(gone, serving("v2", 2, closed)), want: "the stable revision has no pods"},
		"only the new version itself":         {objects: shopOf(gone, serving("v4", 2, open)), want: "was stable before"},
		"what serves has no sidecars":         {objects: shopOf(gone, serving("v2", 2, open, bare)), want: "has no sidecar yet"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, o := range tc.objects {
				switch o := o.(type) {
				case *v1alpha1.Rollout:
					for _, edit := range tc.record {
						edit(o)
					}
				case *v1alpha1.ClusterRolloutPolicy:
					o.Spec.Steps = []v1alpha1.Step{{Weight: 50}}
				}
			}
			k, warned := decidedAbout(t, tc.objects, v3, with(v3, setTemplate("v4")))
			if k != tc.wantK || !strings.Contains(warned, tc.want) {
				t.Errorf("k = %d, want %d; warnings %q, want %q", k, tc.wantK, warned, tc.want)
			}
		})
	}
}

// Pods that are ready serve, also while minReadySeconds keeps them from being available.
func TestAVersionServesBeforeItIsAvailable(t *testing.T) {
	v1 := deployment("v1", func(d *appsv1.Deployment) {
		d.Spec.MinReadySeconds = 300
		d.Spec.ProgressDeadlineSeconds = ptr[int32](600)
	})
	first := replicaSet("v1", 10, ownedBy(testUID), notAvailable)
	none := replicaSet("v1", 0, ownedBy(testUID))
	cases := map[string]struct {
		objects []client.Object
		wantK   int32
		want    string
	}{
		"the first version is ready":    {shopOf([]client.Object{first}, podsOf(first, 3)), 1, "held as a canary rollout"},
		"its sidecars are not":          {shopOf([]client.Object{first}, podsOf(first, 3, func(p *corev1.Pod) { p.Status.InitContainerStatuses[0].Ready = false })), 0, "is not ready"},
		"none of its pods is ready yet": {shopOf([]client.Object{none}, podsOf(none, 3, unready(0))), 0, "no version of it has a ready pod"},
		"it has no pods that are there": {shopOf([]client.Object{none}), 0, "no version of it has a ready pod"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, objects := range [][]client.Object{without[*v1alpha1.Rollout](tc.objects), nothingStable(tc.objects)} {
				k, warned := decidedAbout(t, objects, v1, with(v1, setTemplate("v2")))
				if k != tc.wantK || !strings.Contains(warned, tc.want) {
					t.Errorf("k = %d, want %d; warnings %q, want %q", k, tc.wantK, warned, tc.want)
				}
			}
		})
	}
}

// nothingStable has a record that does not know yet what is stable.
func nothingStable(objects []client.Object) []client.Object {
	r := record(func(r *v1alpha1.Rollout) { r.Status.Stable = v1alpha1.Revision{} })
	r.Namespace, r.Name = "shop", "web"
	return append(without[*v1alpha1.Rollout](objects), r)
}

// Without a record the version that serves most is stable, the older one of two; what is complete comes first.
func TestStableWithoutARecord(t *testing.T) {
	early, late := born(noon.Add(-time.Hour)), born(noon)
	cases := map[string]struct {
		owned []*appsv1.ReplicaSet
		want  string
	}{
		"most ready pods":                          {[]*appsv1.ReplicaSet{replicaSet("v1", 2), replicaSet("v2", 3)}, "v2"},
		"as many: the older":                       {[]*appsv1.ReplicaSet{replicaSet("v2", 3, late), replicaSet("v1", 3, early)}, "v1"},
		"ready, none available":                    {[]*appsv1.ReplicaSet{replicaSet("v1", 3, notAvailable)}, "v1"},
		"the template is ready, but not available": {[]*appsv1.ReplicaSet{replicaSet("v1", 10, early), replicaSet("v2", 10, late, notAvailable)}, "v1"},
		"the template is complete":                 {[]*appsv1.ReplicaSet{replicaSet("v1", 10, early), replicaSet("v2", 10, late)}, "v2"},
		"nothing is ready":                         {[]*appsv1.ReplicaSet{replicaSet("v1", 0)}, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := ""
			if rs := StableReplicaSet(deployment("v2"), nil, tc.owned); rs != nil {
				got = strings.TrimPrefix(hashOf(rs), "h-")
			}
			if got != tc.want {
				t.Errorf("stable is %q, want %q", got, tc.want)
			}
		})
	}
}

// decidedAbout sends an update to the webhook and says with which k it is held (0: not), and what was warned of.
func decidedAbout(t *testing.T, objects []client.Object, old, obj *appsv1.Deployment) (k int32, warned string) {
	t.Helper()
	e := testEdge(t, objects, nil, nil)
	req := admissionOf(t, old, obj)
	resp := e.deployments(t.Context(), req)
	var got appsv1.Deployment
	admitted(t, req, resp, &got)
	return holdOf(t, &got).K, strings.Join(resp.Warnings, "\n")
}

// A version that nobody remembers was stable, if it may have been.
func TestAVersionThatHistoryDoesNotName(t *testing.T) {
	const day = 24 * time.Hour
	begin := time.Date(2026, 11, 28, 8, 0, 0, 0, time.UTC)
	at := func(after time.Duration) metav1.Time { return metav1.NewTime(begin.Add(after)) }
	of := func(from, to string) v1alpha1.HistoryEntry {
		return v1alpha1.HistoryEntry{Outcome: v1alpha1.OutcomePromoted, From: "h-" + from, To: "h-" + to}
	}
	full := append([]v1alpha1.HistoryEntry{of("v2", "v3")}, slices.Repeat([]v1alpha1.HistoryEntry{of("v3", "v4")}, v1alpha1.MaxHistory-1)...)
	for name, tc := range map[string]struct {
		record, rs, v2 time.Duration // created so long after the Deployment; v2 is the first stable version
		gate           v1alpha1.Gate
		stable         string // v2 unless given
		history        []v1alpha1.HistoryEntry
		want           bool
	}{
		"older than a record that came later":             {record: day, v2: time.Hour, want: true},
		"younger than a record that came later":           {record: day, rs: 2 * day},
		"let out before the record, which came later":     {record: day, v2: time.Hour, gate: open, want: true},
		"the first version, and the next was stable":      {record: time.Second, v2: time.Minute},
		"the second one, and the third was stable":        {record: time.Second, rs: time.Minute, v2: time.Hour, gate: open},
		"the first version, long after":                   {record: time.Second, v2: time.Minute, stable: "v4", history: []v1alpha1.HistoryEntry{of("v2", "v3"), of("v3", "v4")}},
		"history names it":                                {record: time.Second, stable: "v2", history: []v1alpha1.HistoryEntry{of("v1", "v2")}, want: true},
		"let out, and replaced before it was complete":    {record: time.Second, rs: time.Hour, v2: time.Minute, gate: open},
		"let out, and history is full":                    {record: time.Second, rs: time.Hour, v2: time.Minute, gate: open, history: full, want: true},
		"history is full, and may have forgotten it":      {record: time.Second, v2: time.Minute, stable: "v4", history: full, want: true},
		"history is full, and it got nowhere":             {record: time.Second, v2: time.Minute, stable: "v4", history: full, gate: closed},
		"older than the Deployment, which was made again": {record: time.Second, rs: -day, v2: -time.Hour, gate: open, want: true},
		"so is its record":                                {record: -day, rs: -day, v2: -time.Hour, gate: open, want: true},
	} {
		rs, v2 := replicaSet("v1", 0, rsGate(tc.gate)), replicaSet("v2", 10)
		in := update(deployment("v2"), deployment("v1"), owning(rs, v2))
		in.Old.CreationTimestamp, in.Record.CreationTimestamp = at(0), at(tc.record)
		rs.CreationTimestamp, v2.CreationTimestamp = at(tc.rs), at(tc.v2)
		in.Record.Status.Stable, in.Record.Status.History = revision(cmp.Or(tc.stable, "v2")), tc.history
		if got := wasStable(rs, &in, in.Record); got != tc.want {
			t.Errorf("%s: was stable %t, want %t", name, got, tc.want)
		}
	}
}
