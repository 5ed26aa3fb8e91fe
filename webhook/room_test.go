// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// filledTo leaves so many bytes for further annotations.
func filledTo(room int) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { annotate(d, "big", filling(room, d.Annotations)) }
}

func filling(room int, others map[string]string) string {
	return strings.Repeat("x", maxAnnotationBytes-annotationBytes(others)-len("big")-room)
}

func TestAHoldNeedsRoomForItsAnnotations(t *testing.T) {
	v1 := deployment("v1")
	held := deployment("v2", heldBy(2, defaults()))
	to := func(room int) *appsv1.Deployment { return with(v1, filledTo(room), setTemplate("v2")) }
	goesOut := outcome{Row: RowCannotHold, Action: ActionLeaveAlone, Version: "v2", Fields: defaults(), Gate: open, Warned: 1}
	unmarked := goesOut
	unmarked.Gate = ""
	hold := outcome{Row: RowCandidate, Action: ActionHold, Version: "v2", Fields: heldFields(1), K: 1, User: defaults(), Gate: closed, Warned: 1}
	checkHold(t, map[string]holdCase{
		"room enough":        {in: update(v1, to(holdRoom)), want: hold},
		"a byte less":        {in: update(v1, to(holdRoom-1)), want: goesOut},
		"not even for marks": {in: update(v1, to(20)), want: unmarked},
		"none":               {in: update(v1, to(0)), want: unmarked},
		"a version that failed before goes out too": {
			in: update(v1, to(0), withRecord(rejected("v2", noon.Add(time.Hour)))), want: unmarked,
		},
		"what Headgate wrote before does not count": {
			in: update(with(v1, gated(open)), with(v1, filledTo(holdRoom), gated(open), setTemplate("v2"))), want: hold,
		},
		"a hold in force stays, with a third version": {
			in:   update(held, with(held, filledTo(holdRoom-1), setTemplate("v3"))),
			want: outcome{Row: RowCandidate, Action: ActionHold, Version: "v3", Fields: heldFields(1), K: 1, User: defaults(), Gate: closed, Warned: 1},
		},
		"the controller wants a hold, in vain": {
			in:   update(with(v1, filledTo(300)), with(v1, filledTo(300), heldBy(1, defaults())), byController),
			want: outcome{Row: RowNothing, Action: ActionLeaveAlone, Version: "v1", Fields: defaults()},
		},
	})
	for room := range holdRoom + 1000 {
		if d := DecideHold(update(v1, to(room))); annotationBytes(d.Deployment.Annotations) > maxAnnotationBytes {
			t.Fatalf("%d bytes are left, and the API server refuses what row %s admits", room, d.Row)
		}
	}
	if w := DecideHold(update(v1, to(0))).Warnings[0]; !strings.Contains(w, "annotations leave no room") {
		t.Errorf("warning %q", w)
	}
}

func TestNoPodGetsMoreAnnotationsThanItMayHave(t *testing.T) {
	for name, f := range map[string]func(*corev1.Pod) *corev1.Pod{
		"with a sidecar, or none for want of room": func(p *corev1.Pod) *corev1.Pod { out, _ := Inject(p, injectConfig()); return out },
		"without a port": func(p *corev1.Pod) *corev1.Pod {
			p.Spec.Containers[0].Ports = nil
			out, _ := Inject(p, injectConfig())
			return out
		},
		"with an open gate":   markOpen,
		"with a closed gate":  CloseGate,
		"gate and no sidecar": func(p *corev1.Pod) *corev1.Pod { out, _ := Inject(markOpen(p), injectConfig()); return out },
	} {
		t.Run(name, func(t *testing.T) {
			for room := range 1000 {
				pod := injectPod(func(p *corev1.Pod) { p.Annotations = map[string]string{"big": filling(room, nil)} })
				if got := annotationBytes(f(pod).Annotations); got > maxAnnotationBytes {
					t.Fatalf("%d bytes are left, and the pod gets %d too many", room, got-maxAnnotationBytes)
				}
			}
		})
	}
}

func TestASkipThatDoesNotFitIsLeftOut(t *testing.T) {
	skip := Skip{Reason: SkipNoPorts, Message: "why"}
	needs := len(v1alpha1.SkipAnnotation) + len(skip.String())
	for room, want := range map[int]string{needs: skip.String(), needs - 1: ""} {
		for before, annotations := range map[string]map[string]string{
			"none": {"big": filling(room, nil)}, "a reason of before": {"big": filling(room, nil), v1alpha1.SkipAnnotation: "x"},
		} {
			pod := injectPod(func(p *corev1.Pod) { p.Annotations = annotations })
			if got := skippedPod(pod, skip).Annotations[v1alpha1.SkipAnnotation]; got != want {
				t.Errorf("%s, room for %d bytes: %q, want %q", before, room, got, want)
			}
		}
	}
}
