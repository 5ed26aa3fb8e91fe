// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

// heldWeb is shop/web in a hold.
func heldWeb(k int32) *appsv1.Deployment {
	d := deployment()
	return webhook.Render(d, holdOn(d, k), nil)
}

// admits makes patches of Deployments pass an admission that renders, as the webhook does.
func admits(t *testing.T, r *Reconciler) {
	t.Helper()
	r.Client = interceptor.NewClient(r.Client.(client.WithWatch), interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if err := c.Patch(ctx, o, p, opts...); err != nil {
				return err
			}
			d, ok := o.(*appsv1.Deployment)
			if !ok {
				return nil
			}
			hold, err := v1alpha1.ParseHold(d.Annotations[v1alpha1.HoldAnnotation])
			if err != nil || hold == nil {
				return err
			}
			stable := template("v1")
			webhook.Render(d, *hold, &stable).DeepCopyInto(d)
			return c.Update(ctx, d)
		},
	})
}

func TestHoldIsWrittenWhenTheWishChanged(t *testing.T) {
	derived := holdOn(deployment(), 2)
	derived.From = "77" // where the webhook derived it from does not matter
	otherUser := holdOn(deployment(), 2)
	otherUser.User.ProgressDeadlineSeconds = ptr(int32(60))
	// While the user had paused, the annotation got another k, and the fields stayed.
	resumed := heldWeb(3)
	resumed.Annotations[v1alpha1.HoldAnnotation] = heldWeb(2).Annotations[v1alpha1.HoldAnnotation]
	stillPaused := resumed.DeepCopy()
	stillPaused.Spec.Paused = true
	for name, tc := range map[string]struct {
		start *appsv1.Deployment
		wish  *v1alpha1.Hold
		want  []string
	}{
		"no wish":                                {heldWeb(2), nil, nil},
		"it is there already":                    {heldWeb(2), ptr(holdOn(deployment(), 2)), nil},
		"it is there, derived from another read": {heldWeb(2), &derived, nil},
		"another k":                              {heldWeb(2), ptr(holdOn(deployment(), 3)), []string{"patch web", "update web"}},
		"other fields of the user":               {heldWeb(2), &otherUser, []string{"patch web", "update web"}},
		"it is there, not rendered":              {resumed, ptr(holdOn(deployment(), 2)), []string{"patch web", "update web"}},
		"not rendered while paused":              {stillPaused, ptr(holdOn(deployment(), 2)), nil},
		"none yet":                               {deployment(), ptr(holdOn(deployment(), 1)), []string{"patch web", "update web"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, w, log := worldOf(t, tc.start, record(), replicaSet(stableHash, "v1", 4))
			admits(t, r)
			if err := r.writeHold(t.Context(), w, decided(w, func(d *rollout.Decision) { d.Hold = tc.wish })); err != nil {
				t.Fatal(err)
			}
			// The update is the admission's own; a direct write would be followed by another patch.
			if d := cmp.Diff(tc.want, log.done); d != "" {
				t.Errorf("writes (-want +got):\n%s", d)
			}
			if tc.want == nil {
				return
			}
			got := stored(t, r.Client, deployment())
			surge := got.Spec.Strategy.RollingUpdate.MaxSurge.IntVal
			if surge != tc.wish.K || got.Annotations[v1alpha1.GateAnnotation] != string(v1alpha1.GateClosed) {
				t.Errorf("maxSurge is %d, want %d; annotations %v", surge, tc.wish.K, got.Annotations)
			}
		})
	}
}

// The user paused, the policy was suspended, he resumed: what the controller wants is in the annotation, but
// only an admission makes the fields of it. Without a write the hold would never end. At N = 0 there is nothing to
// wait for.
func TestAReleaseThatWaitedIsWritten(t *testing.T) {
	for name, tc := range map[string]struct {
		paused   bool
		replicas int32
		want     []string
	}{
		"resumed":            {false, 4, []string{"patch web", "update web"}},
		"still paused":       {true, 4, nil},
		"paused, and N is 0": {true, 0, []string{"patch web", "update web"}},
	} {
		t.Run(name, func(t *testing.T) {
			waiting := holdOn(deployment(), 2)
			waiting.Release = v1alpha1.ReleaseForward
			start := heldWeb(2)
			start.Spec.Paused, start.Spec.Replicas, start.Annotations[v1alpha1.HoldAnnotation] = tc.paused, &tc.replicas, waiting.String()
			r, w, log := worldOf(t, start, record(), replicaSet(stableHash, "v1", 4))
			admits(t, r)
			if err := r.writeHold(t.Context(), w, decided(w, func(d *rollout.Decision) { d.Hold = &waiting })); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, log.done); d != "" {
				t.Errorf("writes (-want +got):\n%s", d)
			}
			got := stored(t, r.Client, deployment())
			if back := cmp.Equal(userFields(), webhook.FieldsOf(got)); back != (tc.want != nil) {
				t.Errorf("paused %v, the fields are %+v", tc.paused, webhook.FieldsOf(got))
			}
		})
	}
}

func TestFieldsAreWrittenDirectlyWithoutTheWebhook(t *testing.T) {
	stable := replicaSet(stableHash, "v1", 4)
	release := func(way v1alpha1.Release) *v1alpha1.Hold {
		h := holdOn(deployment(), 2)
		h.Release = way
		return &h
	}
	type world struct {
		Image, Surge, Gate string
		Held               bool
	}
	for name, tc := range map[string]struct {
		start  *appsv1.Deployment
		sets   []client.Object
		wish   *v1alpha1.Hold
		want   world
		writes []string
	}{
		"a hold":                          {deployment(), []client.Object{stable}, ptr(holdOn(deployment(), 2)), world{"v2", "2", "closed", true}, []string{"patch web", "update web"}},
		"a release forward":               {heldWeb(2), []client.Object{stable}, release(v1alpha1.ReleaseForward), world{"v2", "25%", "open", false}, []string{"patch web", "update web"}},
		"a release back":                  {heldWeb(2), []client.Object{stable}, release(v1alpha1.ReleaseBack), world{"v1", "25%", "open", false}, []string{"patch web", "update web"}},
		"back to a template nobody knows": {heldWeb(2), nil, release(v1alpha1.ReleaseBack), world{"v2", "2", "closed", true}, []string{"patch web"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, w, log := worldOf(t, append(tc.sets, tc.start, record())...)
			if err := r.writeHold(t.Context(), w, decided(w, func(d *rollout.Decision) { d.Hold = tc.wish })); err != nil {
				t.Fatal(err)
			}
			d := stored(t, r.Client, deployment())
			got := world{d.Spec.Template.Spec.Containers[0].Image, d.Spec.Strategy.RollingUpdate.MaxSurge.String(), d.Annotations[v1alpha1.GateAnnotation], d.Annotations[v1alpha1.HoldAnnotation] != ""}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("deployment (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.writes, log.done); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
			if _, hash := d.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; hash {
				t.Error("the template carries the ReplicaSet's label")
			}
		})
	}
}

// A webhook that is registered and does not answer refuses every write that it would have to see.
func TestFieldsAreWrittenDirectlyPastADeadWebhook(t *testing.T) {
	back := holdOn(deployment(), 2)
	back.Release = v1alpha1.ReleaseBack
	for name, tc := range map[string]struct {
		refusal string
		sets    []client.Object
		image   string
		fails   bool
	}{
		"ours":                                  {`failed calling webhook "deployments.headgate.dev": connection refused`, []client.Object{replicaSet(stableHash, "v1", 4)}, "v1", false},
		"ours, and the stable template is gone": {`failed calling webhook "deployments.headgate.dev": connection refused`, nil, "v2", true},
		"somebody else's":                       {`failed calling webhook "policy.example.com": connection refused`, []client.Object{replicaSet(stableHash, "v1", 4)}, "v2", true},
	} {
		t.Run(name, func(t *testing.T) {
			r, w, _ := worldOf(t, append(tc.sets, heldWeb(2), record())...)
			r.Client = interceptor.NewClient(r.Client.(client.WithWatch), interceptor.Funcs{
				Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
					if (&client.PatchOptions{}).ApplyOptions(opts).FieldManager != directFieldManager {
						return apierrors.NewInternalError(errors.New(tc.refusal))
					}
					return c.Patch(ctx, o, p, opts...)
				},
			})
			err := r.writeHold(t.Context(), w, decided(w, func(d *rollout.Decision) { d.Hold = &back }))
			if (err != nil) != tc.fails {
				t.Errorf("the error is %v, want one: %t", err, tc.fails)
			}
			d := stored(t, r.Client, deployment())
			if got := d.Spec.Template.Spec.Containers[0].Image; got != tc.image {
				t.Errorf("the image is %s, want %s", got, tc.image)
			}
			if held := d.Annotations[v1alpha1.HoldAnnotation] != ""; held != tc.fails {
				t.Errorf("held: %t, want %t", held, tc.fails)
			}
		})
	}
}

func TestHoldIsNotWrittenOverANewerDeployment(t *testing.T) {
	r, w, _ := worldOf(t, record())
	newer := stored(t, r.Client, deployment())
	newer.Spec.Template = template("v3")
	if err := r.Client.Update(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	err := r.writeHold(t.Context(), w, decided(w, func(d *rollout.Decision) { d.Hold = ptr(holdOn(deployment(), 1)) }))
	if !conflict(err) {
		t.Errorf("the error is %v, want a conflict", err)
	}
	if got := stored(t, r.Client, deployment()); got.Annotations[v1alpha1.HoldAnnotation] != "" {
		t.Errorf("held by %s", got.Annotations[v1alpha1.HoldAnnotation])
	}
}

// The fake client keeps owners whatever is written; that those that are not kept go is fieldowner's test, and breaking the glass on a cluster.
func TestDirectWriteOwnsNothing(t *testing.T) {
	managers := func(o client.Object) (names []string) {
		for _, f := range o.GetManagedFields() {
			names = append(names, f.Manager)
		}
		return names
	}
	c := cluster(t).WithReturnManagedFields().Build()
	if err := c.Create(t.Context(), deployment(), client.FieldOwner("kubectl")); err != nil {
		t.Fatal(err)
	}
	var written [][]string
	r := reconciler(interceptor.NewClient(c, interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			written = append(written, managers(o), []string{(&client.UpdateOptions{}).ApplyOptions(opts).FieldManager})
			return c.Update(ctx, o, opts...)
		},
	}))
	d := stored(t, c, deployment())
	if err := r.writeDirectly(t.Context(), webhook.Render(d, holdOn(d, 2), nil)); err != nil {
		t.Fatal(err)
	}
	user, direct := []string{"kubectl"}, []string{directFieldManager}
	if diff := cmp.Diff([][]string{user, direct, user, direct}, written); diff != "" {
		t.Errorf("owners in each write, and its writer (-want +got):\n%s", diff)
	}
}
