// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/webhook"
)

// The Event gives the reason that the webhook gave in its warning, however things are by now; once, and of no update that
// was held or is the record's own.
func TestWhyUnheld(t *testing.T) {
	type deployment = *appsv1.Deployment
	const why = "the new version can't have a sidecar: rename it"
	tests := map[string]struct {
		change func(deployment, *v1alpha1.RolloutStatus)
		want   string // empty: no event
	}{
		"a new template":    {func(deployment, *v1alpha1.RolloutStatus) {}, why},
		"the first version": {func(_ deployment, s *v1alpha1.RolloutStatus) { s.Stable.Template = "" }, ""},
		"a third template in the middle of a rollout": {func(_ deployment, s *v1alpha1.RolloutStatus) {
			s.Phase, s.Candidate.Template = v1alpha1.PhaseStepping, "v2"
		}, why},
		"the candidate is let out": {func(d deployment, s *v1alpha1.RolloutStatus) {
			s.Candidate.Template = webhook.TemplateDigest(d.Spec.Template)
		}, ""},
		"the stable template": {func(d deployment, s *v1alpha1.RolloutStatus) {
			s.Stable.Template = webhook.TemplateDigest(d.Spec.Template)
		}, ""},
		"an update that was reported":    {func(_ deployment, s *v1alpha1.RolloutStatus) { s.DeploymentGeneration = 2 }, ""},
		"a record of another Deployment": {func(_ deployment, s *v1alpha1.RolloutStatus) { s.DeploymentUID = "other" }, ""},
		"a held update":                  {func(d deployment, _ *v1alpha1.RolloutStatus) { d.Annotations[v1alpha1.GateAnnotation] = "closed" }, ""},
		"a reason about another template": {func(d deployment, _ *v1alpha1.RolloutStatus) {
			d.Annotations[v1alpha1.GateTemplateAnnotation] = "other"
		}, ""},
		"annotations that leave no room for a reason": {func(d deployment, _ *v1alpha1.RolloutStatus) {
			delete(d.Annotations, v1alpha1.GateReasonAnnotation)
			d.Annotations["notes"] = strings.Repeat("x", 255<<10)
		}, "its annotations leave no room for those of a hold (the API accepts 256 KiB in all)"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{UID: "d", Generation: 2}}
			d.Annotations = map[string]string{
				v1alpha1.GateAnnotation:         string(v1alpha1.GateOpen),
				v1alpha1.GateTemplateAnnotation: webhook.TemplateDigest(d.Spec.Template),
				v1alpha1.GateReasonAnnotation:   why,
			}
			before := &v1alpha1.RolloutStatus{
				DeploymentUID: "d", DeploymentGeneration: 1, Phase: v1alpha1.PhaseIdle, Stable: v1alpha1.Revision{Template: "old"},
			}
			tc.change(d, before)
			if got := whyUnheld(d, before); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// An autoscaler changes N while an update goes out: that is another generation, and the same update.
func TestAnUpdateIsReportedOnce(t *testing.T) {
	web := deployment()
	web.Annotations = map[string]string{v1alpha1.GateAnnotation: string(v1alpha1.GateOpen), v1alpha1.GateTemplateAnnotation: webhook.TemplateDigest(web.Spec.Template),
		v1alpha1.GateReasonAnnotation: "the new version can't have a sidecar"}
	r := reconciler(cluster(t, web).Build())
	recorder := events.NewFakeRecorder(10)
	r.Events = recorder
	before := &v1alpha1.RolloutStatus{DeploymentUID: web.UID, Stable: v1alpha1.Revision{Template: "old"}}
	w := &workload{deployment: web, record: record()}
	report := func(image string) {
		web.Spec.Template = template(image)
		web.Annotations[v1alpha1.GateTemplateAnnotation] = webhook.TemplateDigest(web.Spec.Template)
		before.DeploymentGeneration, web.Generation = web.Generation, web.Generation+1
		r.emitUnheld(w, before)
	}
	for _, image := range []string{"v2", "v3"} {
		report(image)
		report(image)
		report(image)
	}
	if n := len(recorder.Events); n != 2 {
		t.Errorf("two updates, in three generations each, were reported %d times", n)
	}
}
