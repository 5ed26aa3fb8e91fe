// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"math/rand"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/randfill"

	"github.com/headgate/headgate/api/v1alpha1"
)

// world is a random but possible situation: any workload, any record, any client's write.
func world(r *rand.Rand) HoldInput {
	pick := func(n int) bool { return r.Intn(n) == 0 }
	versions := []string{"v0", "v1", "v2", "v3"}
	version := func() string { return versions[r.Intn(len(versions))] }
	old := deployment(version(), fields(randomFields(r)), scaledTo(int32(r.Intn(12))))
	switch r.Intn(6) {
	case 0, 1, 2:
		heldBy(int32(1+r.Intn(4)), randomFields(r))(old)
	case 3:
		gated(open)(old)
	}
	old.Spec.Paused = pick(4)
	obj := old.DeepCopy()
	edits := []func(*appsv1.Deployment){
		setTemplate(version()), fields(randomFields(r)), scaledTo(int32(r.Intn(12))), note("a", "b"), paused,
		func(d *appsv1.Deployment) { d.Spec.Paused = false },
		func(d *appsv1.Deployment) { d.Annotations = nil },
		heldBy(int32(1+r.Intn(4)), randomFields(r)), gated(open), gated(closed),
		note(v1alpha1.HoldAnnotation, "garbage"), note(v1alpha1.BypassAnnotation, version()),
		note(v1alpha1.HoldAnnotation, v1alpha1.Hold{K: int32(1 + r.Intn(9)), Template: digestOf(version()), User: randomFields(r),
			Release: []v1alpha1.Release{"", v1alpha1.ReleaseForward, v1alpha1.ReleaseBack}[r.Intn(3)], UID: testUID}.String()),
	}
	for range r.Intn(4) {
		edits[r.Intn(len(edits))](obj)
	}
	in := update(old, obj, withRecord(trying(version(), []v1alpha1.Phase{v1alpha1.PhaseIdle, v1alpha1.PhaseStarting, v1alpha1.PhaseStepping,
		v1alpha1.PhasePromoting, v1alpha1.PhaseRollingBack, v1alpha1.PhaseQuarantined}[r.Intn(6)]), func(ro *v1alpha1.Rollout) {
		if pick(3) {
			rejected(version(), noon.Add(time.Duration(r.Intn(3)-1)*time.Minute))(ro)
		}
		if pick(3) {
			ro.Status.Hold = v1alpha1.Hold{K: 2, Template: digestOf(version()), User: randomFields(r), UID: testUID}.String()
		}
		if pick(4) {
			ro.Status.DeploymentUID = "other"
		}
	}), owning(replicaSet("v0", 0), replicaSet("v1", int32(r.Intn(12))), replicaSet("v2", int32(r.Intn(3)), rsGate(closed))))
	in.Autoscaled, in.ByController, in.Split.Possible = pick(4), pick(3), !pick(4)
	if pick(5) {
		in.Policy = nil
	}
	if pick(5) {
		in.Record = nil
	}
	if pick(6) {
		in.StableDownSince = ptr(noon.Add(-time.Duration(r.Intn(60)) * time.Second))
	}
	return in
}

func randomFields(r *rand.Rand) v1alpha1.UserFields {
	if r.Intn(6) == 0 {
		return recreate()
	}
	values := []string{"1", "2", "25%", "50%"}
	f := rolling(values[r.Intn(4)], values[r.Intn(4)], []int32{60, 600}[r.Intn(2)])
	if r.Intn(4) == 0 {
		f.MaxUnavailable = ptr(intstr.FromInt32(0))
	}
	return f
}

// worlds is how many situations each property is checked in: half a second each.
const worlds int64 = 3000

func forWorlds(t *testing.T, check func(t *testing.T, in HoldInput)) {
	t.Helper()
	for seed := range worlds {
		check(t, world(rand.New(rand.NewSource(seed))))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// Called again with its own work, the webhook admits the same.
func TestDecidingTwiceIsDecidingOnce(t *testing.T) {
	forWorlds(t, func(t *testing.T, in HoldInput) {
		once := DecideHold(in)
		in.New = once.Deployment
		if diff := cmp.Diff(once.Deployment, DecideHold(in).Deployment); diff != "" {
			t.Errorf("row %s, then:\n%s", once.Row, diff)
		}
	})
}

func TestNothingElseChanges(t *testing.T) {
	forWorlds(t, checkNothingElse)
}

// checkNothingElse is a dumb oracle: put everything that Headgate may change to one value on both sides; the
// rest must be equal. The template may only become stable's, and only where a release back was decided.
func checkNothingElse(t *testing.T, in HoldInput) {
	t.Helper()
	before := in.New.DeepCopy()
	d := DecideHold(in)
	if diff := cmp.Diff(before, in.New); diff != "" {
		t.Errorf("the input was modified:\n%s", diff)
	}
	got := d.Deployment.DeepCopy()
	if !EqualTemplate(&got.Spec.Template, &in.New.Spec.Template) {
		stable := StableReplicaSet(in.Old, in.Record, in.ReplicaSets)
		if d.Action != ActionReleaseBack || stable == nil || !EqualTemplate(&got.Spec.Template, &stable.Spec.Template) ||
			in.New.Spec.Paused && replicasOf(in.New) > 0 {
			t.Errorf("row %s, %s: the template became %s", d.Row, d.Action, raw(t, got.Spec.Template))
		}
	}
	for _, x := range []*appsv1.Deployment{got, before} {
		setFields(x, v1alpha1.UserFields{})
		x.Spec.Template = corev1.PodTemplateSpec{}
		for _, key := range OwnAnnotations() {
			dropAnnotation(x, key)
		}
		if len(x.Annotations) == 0 {
			x.Annotations = nil // an empty map is none
		}
	}
	if diff := cmp.Diff(before, got); diff != "" {
		t.Errorf("row %s changes more than it may:\n%s", d.Row, diff)
	}
}

// What is admitted is in one of three states: held, a release that waits for resume, or free of Headgate.
func TestWhatIsAdmittedIsConsistent(t *testing.T) {
	forWorlds(t, func(t *testing.T, in HoldInput) {
		d := DecideHold(in)
		hold, gate, f := holdOf(t, d.Deployment), gateOf(d.Deployment), FieldsOf(d.Deployment)
		isHeld := hold.K > 0
		switch {
		case isHeld && hold.Template != TemplateDigest(d.Deployment.Spec.Template):
			t.Errorf("row %s: the hold is about another template", d.Row)
		case isHeld && hold.UID != testUID:
			t.Errorf("row %s: the hold is about another Deployment", d.Row)
		case isHeld && hold.Release == "" && gate != closed:
			t.Errorf("row %s: held with a gate that is %q", d.Row, gate)
		case isHeld && !in.Old.Spec.Paused && !in.New.Spec.Paused && !equalFields(f, heldFields(hold.K)) && validFields(hold.User, 0):
			t.Errorf("row %s: held with fields %+v", d.Row, f)
		case isHeld && hold.Release != "" && !in.Old.Spec.Paused && !in.New.Spec.Paused && StableReplicaSet(in.Old, in.Record, in.ReplicaSets) != nil:
			t.Errorf("row %s: a release waits although nobody paused", d.Row)
		case !isHeld && isRendered(f) && !isRendered(FieldsOf(in.New)):
			t.Errorf("row %s: not held, but the fields are a hold's", d.Row)
		case !isHeld && gate == closed && d.Row != RowNothing:
			t.Errorf("row %s: not held, but the gate is closed", d.Row)
		}
	})
}

// Whatever the hold does to the fields in between, the end of it gives the user his object back.
func TestReleaseGivesBackWhatTheUserWrote(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 500 {
		user := deployment("v1", fields(randomFields(r)), note("team", "a"))
		if FieldsOf(user).StrategyType == "Recreate" {
			continue
		}
		written := with(user, setTemplate("v2"))
		held := DecideHold(update(user, written)).Deployment
		held.ResourceVersion = "101"
		for _, k := range []int32{2, 5, 3} {
			h := holdOf(t, held)
			h.K = k
			next := DecideHold(update(held, with(held, note(v1alpha1.HoldAnnotation, h.String())), byController)).Deployment
			if surge := next.Spec.Strategy.RollingUpdate.MaxSurge.IntVal; surge != k {
				t.Fatalf("maxSurge %d, want %d", surge, k)
			}
			held = with(next, func(d *appsv1.Deployment) { d.ResourceVersion += "1" })
		}
		for _, release := range []v1alpha1.Release{v1alpha1.ReleaseForward, v1alpha1.ReleaseBack} {
			h := holdOf(t, held)
			h.Release = release
			got := DecideHold(update(held, with(held, note(v1alpha1.HoldAnnotation, h.String())), byController)).Deployment
			want := written
			if release == v1alpha1.ReleaseBack {
				want = user
			}
			got = with(got, func(d *appsv1.Deployment) {
				d.ResourceVersion = want.ResourceVersion
				dropAnnotation(d, v1alpha1.GateAnnotation)
				dropAnnotation(d, v1alpha1.GateTemplateAnnotation)
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("released %s:\n%s", release, diff)
			}
		}
	}
}

// Render, for direct writes, and the webhook agree.
func TestRenderIsWhatTheWebhookDoes(t *testing.T) {
	held := deployment("v2", heldBy(2, rolling("50%", "1", 300)))
	stable := replicaSet("v1", 10)
	for _, isPaused := range []bool{false, true} {
		for _, release := range []v1alpha1.Release{"", v1alpha1.ReleaseForward, v1alpha1.ReleaseBack} {
			if isPaused && release != "" {
				continue // through the webhook the controller can't even ask
			}
			d := with(held, func(d *appsv1.Deployment) { d.Spec.Paused = isPaused })
			h := holdOf(t, d)
			h.K, h.Release = 4, release
			want := DecideHold(update(d, with(d, note(v1alpha1.HoldAnnotation, h.String())), byController)).Deployment
			h.From = d.ResourceVersion // what only the webhook knows
			got := Render(d, h, &stable.Spec.Template)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("paused %v, release %q (-webhook +Render):\n%s", isPaused, release, diff)
			}
		}
	}
}

// A ReplicaSet and its Deployment have the same digest, and whatever is equal has equal digests.
func TestTemplateDigest(t *testing.T) {
	fill := randfill.NewWithSeed(1).NilChance(.3).NumElements(0, 3).MaxDepth(12).Funcs(
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewMilliQuantity(c.Int63n(1<<40), resource.DecimalSI)
		},
		func(p *metav1.FieldsV1, c randfill.Continue) { p.SetRawBytes([]byte("{}")) },
	)
	for range 300 {
		var a corev1.PodTemplateSpec
		fill.Fill(&a)
		b := roundTrip(t, a)
		if !EqualTemplate(&a, &b) { // times lose their fractions in JSON
			a = b
			b = roundTrip(t, a)
		}
		if b.Labels == nil {
			b.Labels = map[string]string{}
		}
		b.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = "h"
		if !EqualTemplate(&a, &b) {
			t.Fatalf("a template differs from itself with the label:\n%s", cmp.Diff(a, b))
		}
		if TemplateDigest(a) != TemplateDigest(b) {
			t.Fatalf("equal templates with different digests: %s %s", TemplateDigest(a), TemplateDigest(b))
		}
	}
}

func roundTrip(t *testing.T, a corev1.PodTemplateSpec) (b corev1.PodTemplateSpec) {
	t.Helper()
	if err := json.Unmarshal(raw(t, a), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEqualTemplatesHaveEqualDigests(t *testing.T) {
	memory := func(q string) corev1.PodTemplateSpec {
		p := template("v1")
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"memory": resource.MustParse(q)}
		return p
	}
	size := func(q string) corev1.PodTemplateSpec {
		p := template("v1")
		p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr(resource.MustParse(q))}}}}
		return p
	}
	empty := template("v1")
	empty.Annotations, empty.Spec.Volumes, empty.Spec.NodeSelector = map[string]string{}, []corev1.Volume{}, map[string]string{}
	empty.Spec.Containers[0].Env = []corev1.EnvVar{}
	other := template("v1")
	other.Spec.SecurityContext = &corev1.PodSecurityContext{}
	cases := map[string]struct {
		a, b  corev1.PodTemplateSpec
		equal bool
	}{
		"another image":               {template("v1"), template("v2"), false},
		"empty lists and maps":        {template("v1"), empty, true},
		"an empty struct is a struct": {template("v1"), other, false},
		"binary and decimal":          {memory("1Gi"), memory("1073741824"), true},
		"milli":                       {memory("1"), memory("1000m"), true},
		"another quantity":            {memory("1Gi"), memory("1G"), false},
		"quantities behind a pointer": {size("1Ki"), size("1024"), true},
		"very large quantities":       {memory("100E"), memory("100000P"), true},
		"very exact quantities":       {memory("0.1m"), memory("100u"), true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := EqualTemplate(&tc.a, &tc.b); got != tc.equal {
				t.Errorf("equal = %v, want %v", got, tc.equal)
			}
			if got := TemplateDigest(tc.a) == TemplateDigest(tc.b); got != tc.equal {
				t.Errorf("equal digests = %v, want %v", got, tc.equal)
			}
		})
	}
}

// FuzzDecideHold feeds what no API server would store. Nothing may panic, nothing may change that should
// not, and the second look must agree with the first.
func FuzzDecideHold(f *testing.F) {
	for _, d := range []*appsv1.Deployment{
		deployment("v1"), deployment("v2"), deployment("v2", heldBy(2, defaults())), deployment("v2", heldBy(2, recreate()), paused),
		deployment("v3", note(v1alpha1.HoldAnnotation, `{"k":1,"release":"Back"}`)), {}, readDeployment(f),
	} {
		b, err := json.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b, false)
		f.Add(b, []byte(`{"metadata":{"uid":"uid-1"},"spec":{"paused":true}}`), true)
	}
	f.Fuzz(func(t *testing.T, oldJSON, newJSON []byte, controller bool) {
		var old, obj appsv1.Deployment
		if json.Unmarshal(oldJSON, &old) != nil || json.Unmarshal(newJSON, &obj) != nil {
			t.Skip()
		}
		old.ResourceVersion = "100" // what is stored has one, always
		in := update(&old, &obj)
		in.ByController = controller
		in.Record.Status.DeploymentUID = old.UID
		checkNothingElse(t, in)
		once := DecideHold(in)
		in.New = once.Deployment
		twice := DecideHold(in)
		if a, b := raw(t, once.Deployment), raw(t, twice.Deployment); string(a) != string(b) {
			t.Errorf("row %s then %s:\n%s\n%s", once.Row, twice.Row, a, b)
		}
		for _, w := range once.Warnings {
			if len(w) > maxWarning {
				t.Errorf("a warning of %d bytes", len(w))
			}
		}
	})
}

func BenchmarkDecideHold(b *testing.B) {
	v1 := deployment("v1")
	cases := map[string]HoldInput{
		"label of a held one": update(deployment("v2", heldBy(2, defaults())), deployment("v2", heldBy(2, defaults()), note("a", "b"))),
		"new candidate":       update(v1, with(v1, setTemplate("v2"))),
	}
	for name, in := range cases {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				DecideHold(in)
			}
		})
	}
}
