// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/headgate/headgate/api/v1alpha1"
)

func ownedBy(uid types.UID) func(*appsv1.ReplicaSet) {
	return func(rs *appsv1.ReplicaSet) {
		rs.UID = types.UID("rs-" + rs.Name)
		rs.Namespace = "shop"
		rs.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: uid, Controller: ptr(true)}}
	}
}

func TestDecideGate(t *testing.T) {
	stale := func(rs *appsv1.ReplicaSet) {
		rs.Annotations = map[string]string{v1alpha1.GateAnnotation: "open", v1alpha1.GateTemplateAnnotation: digestOf("v9")}
	}
	odd := func(rs *appsv1.ReplicaSet) {
		rs.Annotations = map[string]string{v1alpha1.GateAnnotation: "ajar", v1alpha1.GateTemplateAnnotation: TemplateDigest(rs.Spec.Template)}
	}
	cases := map[string]struct {
		rs     *appsv1.ReplicaSet
		record *v1alpha1.Rollout
		want   bool
	}{
		"the ReplicaSet says closed":                         {replicaSet("v2", 0, ownedBy(testUID), rsGate(closed)), record(), true},
		"the ReplicaSet says closed, nothing recorded":       {replicaSet("v2", 0, ownedBy(testUID), rsGate(closed)), nil, true},
		"the ReplicaSet says open":                           {replicaSet("v2", 0, ownedBy(testUID), rsGate(open)), record(), false},
		"no decision, the stable revision":                   {replicaSet("v1", 0, ownedBy(testUID)), record(), false},
		"no decision, nothing recorded":                      {replicaSet("v2", 0, ownedBy(testUID)), nil, false},
		"no decision, another revision than stable":          {replicaSet("v2", 0, ownedBy(testUID)), record(), true},
		"a decision about another template, not stable":      {replicaSet("v2", 0, ownedBy(testUID), stale), record(), true},
		"a word that is no decision":                         {replicaSet("v2", 0, ownedBy(testUID), odd), record(), true},
		"a record of another Deployment":                     {replicaSet("v2", 0, ownedBy("uid-9")), record(), false},
		"a record that knows no stable revision":             {replicaSet("v2", 0, ownedBy(testUID)), record(func(r *v1alpha1.Rollout) { r.Status.Stable = v1alpha1.Revision{} }), false},
		"a record that knows stable's template but no hash":  {replicaSet("v1", 0, ownedBy(testUID)), record(func(r *v1alpha1.Rollout) { r.Status.Stable.Hash = "" }), false},
		"another revision, where stable's hash is not known": {replicaSet("v2", 0, ownedBy(testUID)), record(func(r *v1alpha1.Rollout) { r.Status.Stable.Hash = "" }), true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := DecideGate(tc.rs, tc.record); got.Closed != tc.want {
				t.Errorf("closed = %v (%s), want %v", got.Closed, got.Reason, tc.want)
			}
		})
	}
}

func TestCloseGate(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "cloud/lb"}}}}
	before := pod.DeepCopy()
	once := CloseGate(pod)
	want := []corev1.PodReadinessGate{{ConditionType: "cloud/lb"}, {ConditionType: v1alpha1.GateCondition}}
	if diff := cmp.Diff(want, once.Spec.ReadinessGates); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(once, CloseGate(once)); diff != "" {
		t.Errorf("closing twice differs:\n%s", diff)
	}
	if diff := cmp.Diff(before, pod); diff != "" {
		t.Errorf("the input was modified:\n%s", diff)
	}
}

func TestDecideScale(t *testing.T) {
	held, rest := deployment("v2", heldBy(1, defaults())), deployment("v1")
	ten := record(trying("v2", v1alpha1.PhaseStepping), func(r *v1alpha1.Rollout) { r.Status.Replicas = 10 })
	other := record(func(r *v1alpha1.Rollout) { r.Status.Replicas, r.Status.DeploymentUID = 10, "other" })
	since := func(phase v1alpha1.Phase, d time.Duration) *v1alpha1.Rollout {
		return record(trying("v2", phase), func(r *v1alpha1.Rollout) {
			r.Status.Replicas, r.Status.PhaseSince = 10, ptr(metav1.NewMicroTime(noon.Add(-d)))
		})
	}
	undated := record(trying("v2", v1alpha1.PhaseQuarantined), func(r *v1alpha1.Rollout) { r.Status.Replicas = 10 })
	down := func(r *v1alpha1.Rollout) ScaleInput {
		return ScaleInput{From: 12, To: 5, ByAutoscaler: true, Deployment: held, Record: r, Now: noon}
	}
	cases := map[string]struct {
		in   ScaleInput
		want int32
	}{
		"an autoscaler's decrease while held is raised to N at the start": {ScaleInput{From: 12, To: 5, ByAutoscaler: true, Deployment: held, Record: ten}, 10},
		"a decrease above N at the start is honoured":                     {ScaleInput{From: 16, To: 12, ByAutoscaler: true, Deployment: held, Record: ten}, 12},
		"an increase is honoured":                                         {ScaleInput{From: 4, To: 6, ByAutoscaler: true, Deployment: held, Record: ten}, 6},
		"a person's decrease is honoured":                                 {ScaleInput{From: 12, To: 5, Deployment: held, Record: ten}, 5},
		"a person had scaled below: never raised above what is there":     {ScaleInput{From: 8, To: 5, ByAutoscaler: true, Deployment: held, Record: ten}, 8},
		"a person has limited the autoscaler meanwhile":                   {ScaleInput{From: 12, To: 3, Max: 4, ByAutoscaler: true, Deployment: held, Record: ten}, 4},
		"it may ask for more than N at the start":                         {ScaleInput{From: 12, To: 5, Max: 20, ByAutoscaler: true, Deployment: held, Record: ten}, 10},
		"not held":                       {ScaleInput{From: 12, To: 5, ByAutoscaler: true, Deployment: rest, Record: ten}, 5},
		"no record":                      {ScaleInput{From: 12, To: 5, ByAutoscaler: true, Deployment: held}, 5},
		"a record of another Deployment": {ScaleInput{From: 12, To: 5, ByAutoscaler: true, Deployment: held, Record: other}, 5},
		"a Deployment that is not known": {ScaleInput{From: 12, To: 5, ByAutoscaler: true, Record: ten}, 5},
		"in quarantine, metrics are about stable alone":           {down(since(v1alpha1.PhaseQuarantined, 5*time.Minute)), 5},
		"in quarantine, metrics are about the time before it too": {down(since(v1alpha1.PhaseQuarantined, 5*time.Minute-time.Second)), 10},
		"in quarantine since nobody knows when":                   {down(undated), 10},
		"rolling back for long":                                   {down(since(v1alpha1.PhaseRollingBack, time.Hour)), 10},
		"paused for long":                                         {down(since(v1alpha1.PhasePaused, time.Hour)), 10},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := DecideScale(tc.in)
			if got.Replicas != tc.want || got.Raised != (tc.want != tc.in.To) {
				t.Errorf("got %+v, want %d replicas", got, tc.want)
			}
		})
	}
}

func TestSelectPolicy(t *testing.T) {
	age := func(name string, minutes int, match string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(noon.Add(-time.Duration(minutes) * time.Minute)), Labels: map[string]string{"m": match}}
	}
	sel := func(app string) v1alpha1.RolloutPolicySpec {
		s := v1alpha1.RolloutPolicySpec{}
		if app != "" {
			s.Selector.MatchLabels = map[string]string{"app": app}
		}
		return s
	}
	ns := func(name string, minutes int, app string) v1alpha1.RolloutPolicy {
		return v1alpha1.RolloutPolicy{ObjectMeta: age(name, minutes, app), Spec: sel(app)}
	}
	cl := func(name string, minutes int, app string) v1alpha1.ClusterRolloutPolicy {
		return v1alpha1.ClusterRolloutPolicy{ObjectMeta: age(name, minutes, app), Spec: sel(app)}
	}
	invalid := ns("invalid", 99, "")
	invalid.Spec.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Nope"}}
	suspended := ns("off", 1, "")
	suspended.Spec.Suspend = true
	cases := map[string]struct {
		namespaced []v1alpha1.RolloutPolicy
		cluster    []v1alpha1.ClusterRolloutPolicy
		want       string
		conflicts  []string
	}{
		"none":                              {},
		"the cluster's":                     {cluster: []v1alpha1.ClusterRolloutPolicy{cl("default", 5, "")}, want: "clusterrolloutpolicy/default"},
		"the namespace's wins":              {namespaced: []v1alpha1.RolloutPolicy{ns("a", 1, "")}, cluster: []v1alpha1.ClusterRolloutPolicy{cl("default", 5, "")}, want: "rolloutpolicy/a"},
		"one for others selects nothing":    {namespaced: []v1alpha1.RolloutPolicy{ns("a", 1, "db")}, cluster: []v1alpha1.ClusterRolloutPolicy{cl("default", 5, "web")}, want: "clusterrolloutpolicy/default"},
		"the older wins":                    {namespaced: []v1alpha1.RolloutPolicy{ns("a", 1, ""), ns("b", 3, ""), ns("c", 2, "")}, want: "rolloutpolicy/b", conflicts: []string{"rolloutpolicy/c", "rolloutpolicy/a"}},
		"of the same age by name":           {namespaced: []v1alpha1.RolloutPolicy{ns("b", 1, ""), ns("a", 1, "")}, want: "rolloutpolicy/a", conflicts: []string{"rolloutpolicy/b"}},
		"an invalid selector is no policy":  {namespaced: []v1alpha1.RolloutPolicy{invalid, ns("a", 1, "")}, want: "rolloutpolicy/a"},
		"a suspended one still is selected": {namespaced: []v1alpha1.RolloutPolicy{suspended}, cluster: []v1alpha1.ClusterRolloutPolicy{cl("default", 5, "")}, want: "rolloutpolicy/off"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := SelectPolicy(tc.namespaced, tc.cluster, map[string]string{"app": "web"})
			if got.Name != tc.want || (got.Spec == nil) != (tc.want == "") || cmp.Diff(tc.conflicts, got.Conflicts) != "" {
				t.Errorf("got %s with conflicts %v, want %s with %v", got.Name, got.Conflicts, tc.want, tc.conflicts)
			}
		})
	}
}

func TestTroubleWithThePolicy(t *testing.T) {
	conflict := refusedPolicy(3)
	conflict.Status.Conditions[0].Status = metav1.ConditionTrue
	wide := v1alpha1.ClusterRolloutPolicy{ObjectMeta: refusedPolicy(3).ObjectMeta, Status: refusedPolicy(3).Status}
	wide.Name = strings.Repeat("n", 253)
	for name, tc := range map[string]struct {
		namespaced []v1alpha1.RolloutPolicy
		cluster    []v1alpha1.ClusterRolloutPolicy
		want       string
	}{
		"no policy":                     {},
		"nothing was said yet":          {namespaced: []v1alpha1.RolloutPolicy{{ObjectMeta: metav1.ObjectMeta{Name: "p"}}}},
		"it can't be used":              {namespaced: []v1alpha1.RolloutPolicy{*refusedPolicy(3)}, want: "RolloutPolicy p can't be used as it is: it names no host"},
		"it was changed since":          {namespaced: []v1alpha1.RolloutPolicy{*refusedPolicy(2)}},
		"it is in use":                  {namespaced: []v1alpha1.RolloutPolicy{*conflict}},
		"one that is not selected":      {namespaced: []v1alpha1.RolloutPolicy{*conflict}, cluster: []v1alpha1.ClusterRolloutPolicy{wide}},
		"the cluster's, of a long name": {cluster: []v1alpha1.ClusterRolloutPolicy{wide}, want: "ClusterRolloutPolicy " + strings.Repeat("n", 77) + "... can't be used as it is: it names no host"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := SelectPolicy(tc.namespaced, tc.cluster, nil).trouble(); got != tc.want {
				t.Errorf("it says %q, want %q", got, tc.want)
			}
		})
	}
}

// stablePod is an injected pod that serves on node n1.
func stablePod(name string, edits ...func(*corev1.Pod)) corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "shop", CreationTimestamp: metav1.NewTime(noon.Add(-time.Hour)),
			Labels:      map[string]string{v1alpha1.InjectedLabel: "true"},
			Annotations: map[string]string{v1alpha1.InjectionAnnotation: `{"workload":"web","revision":"h-v1","ports":[{"port":8080,"protocol":"auto"}]}`},
		},
		Spec: corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{
			Conditions:            []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			InitContainerStatuses: []corev1.ContainerStatus{{Name: v1alpha1.ProxyContainer, Ready: true}},
		},
	}
	for _, e := range edits {
		e(&p)
	}
	return p
}

func unready(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(noon.Add(-d))}}
	}
}

func bare(p *corev1.Pod)        { p.Labels, p.Annotations = nil, nil }
func evicted(p *corev1.Pod)     { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }
func terminating(p *corev1.Pod) { p.DeletionTimestamp = ptr(metav1.NewTime(noon)) }
func on(node string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeName = node }
}

func TestSplitFromPods(t *testing.T) {
	cases := map[string]struct {
		pods []corev1.Pod
		want string // the reason; empty: possible
	}{
		"all injected":                 {[]corev1.Pod{stablePod("a"), stablePod("b")}, ""},
		"one older than Headgate":      {[]corev1.Pod{stablePod("a"), stablePod("b", bare)}, "pod b has no sidecar yet"},
		"an old one that is not ready": {[]corev1.Pod{stablePod("a"), stablePod("b", bare, unready(0))}, ""},
		"an old one that ends":         {[]corev1.Pod{stablePod("a"), stablePod("b", bare, terminating)}, ""},
		"none ready, all injected":     {[]corev1.Pod{stablePod("a", unready(0))}, ""},
		"none ready, none injected":    {[]corev1.Pod{stablePod("a", unready(0), bare)}, "pod a has no sidecar yet"},
		"no pods":                      {nil, "the stable revision has no pods"},
		"the skip's own words": {[]corev1.Pod{stablePod("a", bare, func(p *corev1.Pod) {
			p.Annotations = map[string]string{v1alpha1.SkipAnnotation: "PodSecurity: baseline"}
		})}, "no sidecar: PodSecurity: baseline"},
		"a sidecar that is not ready": {[]corev1.Pod{stablePod("a", func(p *corev1.Pod) { p.Status.InitContainerStatuses[0].Ready = false })}, "the sidecar of pod a is not ready"},
		"no captured port": {[]corev1.Pod{stablePod("a", func(p *corev1.Pod) {
			p.Annotations[v1alpha1.InjectionAnnotation] = `{"workload":"web","revision":"h-v1"}`
		})}, "no port to split: the pods declare no TCP containerPort"},
		"an annotation that can't be read":    {[]corev1.Pod{stablePod("a", func(p *corev1.Pod) { p.Annotations[v1alpha1.InjectionAnnotation] = `{` })}, "no port to split: the pods declare no TCP containerPort"},
		"labelled, but without the container": {[]corev1.Pod{stablePod("a", func(p *corev1.Pod) { p.Status.InitContainerStatuses = nil })}, "the sidecar of pod a is not ready"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := SplitFromPods(tc.pods)
			if got.Possible != (tc.want == "") || got.Reason != tc.want {
				t.Errorf("got %+v, want reason %q", got, tc.want)
			}
		})
	}
}

func noRoom(p *corev1.Pod) {
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable})
}

func TestStableDown(t *testing.T) {
	ready := func(node string) bool { return node == "n1" }
	cases := map[string]struct {
		pods []corev1.Pod
		want *time.Time
	}{
		"one serves":                          {[]corev1.Pod{stablePod("a"), stablePod("b", unready(time.Hour))}, nil},
		"none serves since the last one fell": {[]corev1.Pod{stablePod("a", unready(time.Minute)), stablePod("b", unready(time.Hour))}, ptr(noon.Add(-time.Minute))},
		"one serves on a lost node":           {[]corev1.Pod{stablePod("a", on("n2")), stablePod("b", unready(time.Minute))}, ptr(noon.Add(-time.Minute))},
		"all on a lost node":                  {[]corev1.Pod{stablePod("a", on("n2"), unready(time.Minute))}, nil},
		"not scheduled":                       {[]corev1.Pod{stablePod("a", on(""), unready(time.Minute))}, nil},
		"no node has room":                    {[]corev1.Pod{stablePod("a", on(""), unready(time.Minute), noRoom)}, ptr(noon.Add(-time.Minute))},
		"the one that serves is ending":       {[]corev1.Pod{stablePod("a", terminating), stablePod("b", unready(time.Minute))}, ptr(noon)},
		"one that did not serve is ending":    {[]corev1.Pod{stablePod("a", terminating, unready(time.Hour)), stablePod("b", unready(time.Minute))}, ptr(noon.Add(-time.Minute))},
		"evicted hours ago, the others drain": {[]corev1.Pod{stablePod("a", evicted, unready(5*time.Hour)), stablePod("b", terminating), stablePod("c", on(""))}, nil},
		"never ready":                         {[]corev1.Pod{stablePod("a", func(p *corev1.Pod) { p.Status.Conditions = nil })}, ptr(noon.Add(-time.Hour))},
		"no pods":                             {nil, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, StableDown(tc.pods, ready)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
