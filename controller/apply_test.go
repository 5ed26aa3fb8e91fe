// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// writes notes every write of a client, in order, and fails those that fail names.
type writes struct {
	done []string
	fail string
}

func (w *writes) note(verb string, o client.Object) error {
	what := verb + " " + o.GetName()
	w.done = append(w.done, what)
	if what == w.fail {
		return errRefused
	}
	return nil
}

func (w *writes) funcs() interceptor.Funcs {
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return errors.Join(w.note("create", o), c.Create(ctx, o, opts...))
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return errors.Join(w.note("update", o), c.Update(ctx, o, opts...))
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return errors.Join(w.note("patch", o), c.Patch(ctx, o, p, opts...))
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return errors.Join(w.note("delete", o), c.Delete(ctx, o, opts...))
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			if err := w.note("update "+sub+" of", o); err != nil {
				return err
			}
			return c.SubResource(sub).Update(ctx, o, opts...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			return errors.Join(w.note("patch "+sub+" of", o), c.SubResource(sub).Patch(ctx, o, p, opts...))
		},
	}
}

// worldOf is a cluster with shop/web and these objects, as the Reconciler gathered it.
func worldOf(t *testing.T, objects ...client.Object) (*Reconciler, *workload, *writes) {
	t.Helper()
	log := &writes{}
	objects = append(objects, namespace("shop", true))
	if !slices.ContainsFunc(objects, func(o client.Object) bool { _, ok := o.(*appsv1.Deployment); return ok }) {
		objects = append(objects, deployment())
	}
	r := reconciler(cluster(t, objects...).WithInterceptorFuncs(log.funcs()).Build())
	w, err := r.gather(t.Context(), webKey)
	if err != nil {
		t.Fatal(err)
	}
	return r, w, log
}

// decided is a Decision that keeps the record as it is.
func decided(w *workload, change func(*rollout.Decision)) rollout.Decision {
	d := rollout.Decision{Status: w.status()}
	change(&d)
	return d
}

func TestStatusIsWrittenBeforeEverythingElse(t *testing.T) {
	everything := func(d *rollout.Decision) {
		d.Status.Weight = 0
		d.Failure = "headgate: rolled back"
		d.CloseGates = []string{candidateHash}
		d.DeletePods = []string{"c2"}
		d.Sizes = []rollout.Size{{Revision: stableHash, Replicas: 4}}
		d.DeleteRevisions = []string{"ccc"}
		d.ClearPromote = true
		d.Hold = ptr(holdOn(deployment(), 1))
	}
	objects := func() []client.Object {
		wished := record()
		wished.Spec.Promote = &v1alpha1.RevisionWish{Revision: candidateHash}
		return []client.Object{
			wished, replicaSet(stableHash, "v1", 3), replicaSet(candidateHash, "v2", 1), replicaSet("ccc", "v3", 0),
			podOf(candidateHash, "c1", "10.0.0.2", gateOpen), podOf(candidateHash, "c2", "10.0.0.3"),
		}
	}
	t.Run("in order", func(t *testing.T) {
		r, w, log := worldOf(t, objects()...)
		if err := r.apply(t.Context(), w, decided(w, everything)); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"update status of web", "update web", // the record: its status, then the wish that was taken up
			"patch status of web",             // the failure, for native tools
			"patch status of c1", "patch web", // the gate, the hold
			"update web", // no webhook here: the fields directly, which nobody owns here
			"delete c2", "update web-aaa", "delete web-ccc",
		}
		if d := cmp.Diff(want, log.done); d != "" {
			t.Errorf("writes (-want +got):\n%s", d)
		}
		got := stored(t, r.Client, record())
		if got.Status.Weight != 0 || got.Spec.Promote != nil {
			t.Errorf("the record is %+v %+v", got.Spec, got.Status)
		}
	})
	t.Run("refused, nothing else is done", func(t *testing.T) {
		r, w, log := worldOf(t, objects()...)
		log.fail = "update status of web"
		if err := r.apply(t.Context(), w, decided(w, everything)); !errors.Is(err, errRefused) {
			t.Errorf("the error is %v", err)
		}
		if d := cmp.Diff([]string{"update status of web"}, log.done); d != "" {
			t.Errorf("writes (-want +got):\n%s", d)
		}
	})
	t.Run("after it, one failure keeps nothing from being done", func(t *testing.T) {
		r, w, log := worldOf(t, objects()...)
		log.fail = "patch status of c1"
		if err := r.apply(t.Context(), w, decided(w, everything)); !errors.Is(err, errRefused) {
			t.Errorf("the error is %v", err)
		}
		if last := log.done[len(log.done)-1]; last != "delete web-ccc" {
			t.Errorf("the last write was %q", last)
		}
	})
}

func TestWhatIsRecordedIsReported(t *testing.T) {
	happened := rollout.Event{Reason: "Promoted", Message: "on evidence"}
	for name, tc := range map[string]struct {
		refused string // the write
		want    int
	}{
		"all is written":           {"", 1},
		"the status is refused":    {"update status of web", 0},
		"a taken-up wish is stuck": {"update web", 1},
		"a gate is refused":        {"patch status of c1", 1},
	} {
		t.Run(name, func(t *testing.T) {
			wished := record()
			wished.Spec.Promote = &v1alpha1.RevisionWish{Revision: candidateHash}
			r, w, log := worldOf(t, wished, replicaSet(candidateHash, "v2", 1), podOf(candidateHash, "c1", "10.0.0.2"))
			recorder := events.NewFakeRecorder(10)
			r.Events, log.fail = recorder, tc.refused
			err := r.apply(t.Context(), w, decided(w, func(d *rollout.Decision) {
				d.Status.Phase, d.ClearPromote, d.OpenGates = v1alpha1.PhasePromoting, true, []string{candidateHash}
				d.Events = []rollout.Event{happened}
			}))
			if refused := tc.refused != ""; errors.Is(err, errRefused) != refused {
				t.Errorf("the error is %v, want one: %t", err, refused)
			}
			if got := len(recorder.Events); got != tc.want {
				t.Errorf("%d events, want %d", got, tc.want)
			}
		})
	}
}

func TestRecordIsCreatedOnceAndWrittenOnChange(t *testing.T) {
	r, w, log := worldOf(t)
	d := rollout.Decision{Status: v1alpha1.RolloutStatus{Phase: v1alpha1.PhaseIdle, Stable: v1alpha1.Revision{Hash: stableHash}}}
	for range 2 {
		if err := r.apply(t.Context(), w, d); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"create web", "update status of web"}, log.done); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	got := stored(t, r.Client, record())
	if len(got.OwnerReferences) != 1 || got.OwnerReferences[0].UID != "d-uid" || got.Status.Stable.Hash != stableHash {
		t.Errorf("the record is owned by %v and says %+v", got.OwnerReferences, got.Status)
	}
}

func TestFailureConditionIsWrittenOnceAndTakenBack(t *testing.T) {
	r, w, log := worldOf(t)
	refresh := func() {
		fresh, err := r.gather(t.Context(), webKey)
		if err != nil {
			t.Fatal(err)
		}
		w = fresh
	}
	progressing := func() []string {
		var out []string
		for _, c := range stored(t, r.Client, deployment()).Status.Conditions {
			out = append(out, string(c.Type)+" "+string(c.Status)+" "+c.Reason+" "+c.Message)
		}
		return out
	}
	for _, step := range []struct {
		when, failure string
		before        *appsv1.DeploymentCondition
		writes        int
		want          []string
	}{
		{when: "nothing failed", writes: 0},
		{
			when: "failed", failure: "headgate: rolled back", writes: 1,
			want: []string{"Progressing False ProgressDeadlineExceeded headgate: rolled back"},
		},
		{
			when: "still failed", failure: "headgate: rolled back", writes: 0,
			want: []string{"Progressing False ProgressDeadlineExceeded headgate: rolled back"},
		},
		{
			when: "overwritten by the Deployment controller", failure: "headgate: rolled back", writes: 1,
			before: &appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: "ReplicaSetUpdated"},
			want:   []string{"Progressing False ProgressDeadlineExceeded headgate: rolled back"},
		},
		{
			when: "tried again", writes: 1,
			want: []string{"Progressing True ReplicaSetUpdated headgate: the failed version is gone or tried again"},
		},
		{
			when: "a failure that is not Headgate's stays", writes: 0,
			before: &appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded", Message: "timed out"},
			want:   []string{"Progressing False ProgressDeadlineExceeded timed out"},
		},
	} {
		if step.before != nil {
			d := stored(t, r.Client, deployment())
			d.Status.Conditions = []appsv1.DeploymentCondition{*step.before}
			if err := r.Client.Status().Update(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
		refresh()
		log.done = nil
		if err := r.showFailure(t.Context(), w, step.failure); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(step.want, progressing()); d != "" || len(log.done) != step.writes {
			t.Errorf("%s: %d writes, want %d; conditions (-want +got):\n%s", step.when, len(log.done), step.writes, d)
		}
	}
}

func TestGatesAreSetOnlyWhereNeeded(t *testing.T) {
	ungated := func(pod *corev1.Pod) { pod.Spec.ReadinessGates = nil }
	r, w, log := worldOf(t, record(), replicaSet(stableHash, "v1", 4), replicaSet(candidateHash, "v2", 4),
		podOf(stableHash, "s-closed", ""), podOf(stableHash, "s-open", "", gateOpen), podOf(stableHash, "s-ungated", "", ungated), podOf(stableHash, "s-leaving", "", terminating),
		podOf(candidateHash, "c-closed", ""), podOf(candidateHash, "c-open", "", gateOpen), podOf(candidateHash, "c-leaving", "", gateOpen, terminating),
	)
	d := decided(w, func(d *rollout.Decision) {
		d.OpenGates, d.CloseGates = []string{stableHash}, []string{candidateHash}
	})
	if err := r.openGates(t.Context(), w, d); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"patch status of s-closed", "patch status of c-open"}, log.done); diff != "" {
		t.Errorf("writes, what raises first (-want +got):\n%s", diff)
	}
	for name, want := range map[string]bool{"s-closed": true, "s-open": true, "c-closed": false, "c-open": false} {
		pod := stored(t, r.Client, podOf(stableHash, name, ""))
		if conditionTrue(pod, v1alpha1.GateCondition) != want || !conditionTrue(pod, corev1.ContainersReady) {
			t.Errorf("pod %s: gate open is %t, want %t; its other conditions stay", name, !want, want)
		}
	}
}

// A leader of the past still sees the pod as it was; its successor has opened the gate since.
func TestAGateIsSetOnThePodThatWasSeen(t *testing.T) {
	r, w, _ := worldOf(t, record(), replicaSet(candidateHash, "v2", 1), podOf(candidateHash, "c1", "", gateOpen))
	fresh := w.pods[candidateHash][0].DeepCopy()
	set(corev1.PodReady, corev1.ConditionTrue, 7)(fresh)
	if err := r.Client.Status().Update(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	err := r.openGates(t.Context(), w, decided(w, func(d *rollout.Decision) { d.CloseGates = []string{candidateHash} }))
	if !conflict(err) || !conditionTrue(stored(t, r.Client, podOf(candidateHash, "c1", "")), v1alpha1.GateCondition) {
		t.Errorf("the gate was closed on a pod that is another by now: %v", err)
	}
}

func TestGoneObjectsAreNoErrors(t *testing.T) {
	r, w, _ := worldOf(t, record(), replicaSet(candidateHash, "v2", 0), podOf(candidateHash, "c1", ""))
	for _, o := range []client.Object{w.pods[candidateHash][0], w.replicaSets[0]} {
		if err := r.Client.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	err := r.apply(t.Context(), w, decided(w, func(d *rollout.Decision) {
		d.OpenGates, d.DeletePods, d.DeleteRevisions = []string{candidateHash}, []string{"c1"}, []string{candidateHash, "never-there"}
		d.Sizes = []rollout.Size{{Revision: "never-there", Replicas: 1}}
	}))
	if err != nil {
		t.Error(err)
	}
}

func TestResizeTrustsOnlyALiveN(t *testing.T) {
	for name, tc := range map[string]struct {
		live  int32
		sizes []rollout.Size
		want  map[string]int32
	}{
		"stable is raised":                            {4, []rollout.Size{{Revision: stableHash, Replicas: 8}}, map[string]int32{stableHash: 8, candidateHash: 3}},
		"stable is lowered to N":                      {4, []rollout.Size{{Revision: stableHash, Replicas: 4}}, map[string]int32{stableHash: 4, candidateHash: 3}},
		"never below an N that the cache didn't know": {6, []rollout.Size{{Revision: stableHash, Replicas: 4}, {Revision: candidateHash, Replicas: 1}}, map[string]int32{stableHash: 6, candidateHash: 3}},
		"the candidate is lowered whatever N is":      {6, []rollout.Size{{Revision: candidateHash, Replicas: 1}}, map[string]int32{stableHash: 6, candidateHash: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			r, w, _ := worldOf(t, record(), replicaSet(stableHash, "v1", 6), replicaSet(candidateHash, "v2", 3))
			live := stored(t, r.Client, deployment())
			live.Spec.Replicas = &tc.live
			if err := r.Client.Update(t.Context(), live); err != nil {
				t.Fatal(err)
			}
			if err := r.resize(t.Context(), w, decided(w, func(d *rollout.Decision) { d.Sizes = tc.sizes })); err != nil {
				t.Fatal(err)
			}
			got := map[string]int32{}
			for _, hash := range []string{stableHash, candidateHash} {
				got[hash] = *stored(t, r.Client, replicaSet(hash, "", 0)).Spec.Replicas
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("sizes (-want +got):\n%s", d)
			}
		})
	}
}

// After an outage of the API server the caches come back one by one: ReplicaSets of an update whose Deployment is not known yet look
// like what is left of some version.
func TestNothingIsLoweredForAVersionOfBefore(t *testing.T) {
	r, w, _ := worldOf(t, record(), replicaSet(stableHash, "v1", 4), replicaSet("ccc", "v3", 1))
	live := stored(t, r.Client, deployment())
	live.Spec.Template = template("v3")
	if err := r.Client.Update(t.Context(), live); err != nil {
		t.Fatal(err)
	}
	if err := r.resize(t.Context(), w, decided(w, func(d *rollout.Decision) { d.Sizes = []rollout.Size{{Revision: "ccc", Replicas: 0}} })); err != nil {
		t.Fatal(err)
	}
	if got := *stored(t, r.Client, replicaSet("ccc", "", 0)).Spec.Replicas; got != 1 {
		t.Errorf("the new version has %d replicas, want the 1 that it was given", got)
	}
}

// The Deployment controller shares out a change of N by what it noted when it sized a ReplicaSet last. Where
// Headgate does the sizing, it notes the same.
func TestResizeNotesTheMostPodsThatThereMayBe(t *testing.T) {
	r, w, _ := worldOf(t, record(), replicaSet(stableHash, "v1", 4), replicaSet(candidateHash, "v2", 1))
	hold := holdOn(w.deployment, 3)
	if err := r.resize(t.Context(), w, decided(w, func(d *rollout.Decision) {
		d.Hold, d.Sizes = &hold, []rollout.Size{{Revision: candidateHash, Replicas: 3}}
	})); err != nil {
		t.Fatal(err)
	}
	got := stored(t, r.Client, replicaSet(candidateHash, "", 0)).Annotations
	want := map[string]string{desiredAnnotation: "4", maxAnnotation: "7"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("annotations (-want +got):\n%s", d)
	}
}

// With Recreate the Deployment controller may wait for its own note of N.
func TestNIsNotedAsTheDeploymentControllerNotesIt(t *testing.T) {
	r, w, _ := worldOf(t, record(), replicaSet(stableHash, "v1", 2), replicaSet(candidateHash, "v2", 1))
	w.deployment.Spec.Replicas = ptr(int32(7))
	d := decided(w, func(d *rollout.Decision) { d.NoteReplicas = []string{stableHash, "gone"} })
	if err := r.noteReplicas(t.Context(), w, d); err != nil {
		t.Fatal(err)
	}
	got := stored(t, r.Client, replicaSet(stableHash, "", 0))
	want := map[string]string{desiredAnnotation: "7", maxAnnotation: "7"}
	if diff := cmp.Diff(want, got.Annotations); diff != "" || *got.Spec.Replicas != 2 {
		t.Errorf("%d replicas, want 2 as before; annotations (-want +got):\n%s", *got.Spec.Replicas, diff)
	}
	got.Annotations["somebody"] = "writes"
	if err := r.Client.Update(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	if err := r.noteReplicas(t.Context(), w, d); !apierrors.IsConflict(err) {
		t.Errorf("noting N on a stale ReplicaSet gives %v, want a conflict", err)
	}
}

func TestStaleReplicaSetsAreLeftAlone(t *testing.T) {
	r, w, _ := worldOf(t, record(), replicaSet(stableHash, "v1", 3), replicaSet("ccc", "v3", 0))
	for _, hash := range []string{stableHash, "ccc"} { // somebody writes after they were read
		rs := stored(t, r.Client, replicaSet(hash, "", 0))
		rs.Spec.Replicas = ptr(int32(7))
		if err := r.Client.Update(t.Context(), rs); err != nil {
			t.Fatal(err)
		}
	}
	err := r.resize(t.Context(), w, decided(w, func(d *rollout.Decision) { d.Sizes = []rollout.Size{{Revision: stableHash, Replicas: 4}} }))
	if !apierrors.IsConflict(err) || !conflict(err) {
		t.Errorf("resizing a stale ReplicaSet gives %v, want a conflict, after which it is tried again soon", err)
	}
	var refused error
	r.Client = interceptor.NewClient(r.Client.(client.WithWatch), interceptor.Funcs{
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			given := (&client.DeleteOptions{}).ApplyOptions(opts)
			if given.Preconditions == nil || *given.Preconditions.UID != "rs-ccc" || *given.Preconditions.ResourceVersion != o.GetResourceVersion() {
				t.Errorf("deleting %s with preconditions %+v", o.GetName(), given.Preconditions)
			}
			refused = apierrors.NewConflict(appsv1.Resource("replicasets"), o.GetName(), errRefused) // as the API server does
			return refused
		},
	})
	if err := r.deleteRevisions(t.Context(), w, decided(w, func(d *rollout.Decision) { d.DeleteRevisions = []string{"ccc"} })); err != nil || refused == nil {
		t.Errorf("a ReplicaSet that is not as it was read: %v (asked: %t)", err, refused != nil)
	}
}
