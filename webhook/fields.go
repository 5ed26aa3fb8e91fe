// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
)

// FieldsOf reads the three fields of a Deployment, and strategy.type. The result shares nothing with d.
func FieldsOf(d *appsv1.Deployment) v1alpha1.UserFields {
	f := v1alpha1.UserFields{
		StrategyType:            string(d.Spec.Strategy.Type),
		ProgressDeadlineSeconds: copyOf(d.Spec.ProgressDeadlineSeconds),
	}
	if ru := d.Spec.Strategy.RollingUpdate; ru != nil {
		f.MaxSurge, f.MaxUnavailable = copyOf(ru.MaxSurge), copyOf(ru.MaxUnavailable)
	}
	return f
}

// setFields writes the three fields and strategy.type. A type that is not Recreate is RollingUpdate.
func setFields(d *appsv1.Deployment, f v1alpha1.UserFields) {
	d.Spec.ProgressDeadlineSeconds = copyOf(f.ProgressDeadlineSeconds)
	d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.DeploymentStrategyType(f.StrategyType)}
	if f.StrategyType == string(appsv1.RecreateDeploymentStrategyType) {
		return
	}
	if f.MaxSurge != nil || f.MaxUnavailable != nil {
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{
			MaxSurge: copyOf(f.MaxSurge), MaxUnavailable: copyOf(f.MaxUnavailable),
		}
	}
}

// heldFields are what a hold with k candidate pods is rendered to.
func heldFields(k int32) v1alpha1.UserFields {
	surge, unavailable, deadline := intstr.FromInt32(k), intstr.FromInt32(0), v1alpha1.HeldProgressDeadlineSeconds
	return v1alpha1.UserFields{
		StrategyType: string(appsv1.RollingUpdateDeploymentStrategyType),
		MaxSurge:     &surge, MaxUnavailable: &unavailable, ProgressDeadlineSeconds: &deadline,
	}
}

// isRendered says whether the fields are a hold's and not the user's. They are the user's while he had
// paused before the hold came. The deadline alone does not tell: who writes another maxUnavailable over a
// hold's fields wants that.
func isRendered(f v1alpha1.UserFields) bool {
	return f.HaveHeldDeadline() && equal(f.MaxUnavailable, ptr(intstr.FromInt32(0)))
}

// mergeWishes tells the user's new values from what Headgate rendered, field by field: a field that
// equals any of the rendered ones is untouched and keeps the value recorded before; anything else is
// the user's wish.
func mergeWishes(written v1alpha1.UserFields, recorded v1alpha1.UserFields, rendered ...v1alpha1.UserFields) v1alpha1.UserFields {
	seen := untouched(written, rendered)
	wish := copyFields(recorded)
	if !seen.deadline {
		wish.ProgressDeadlineSeconds = copyOf(written.ProgressDeadlineSeconds)
	}
	if !seen.strategyType {
		wish.StrategyType = written.StrategyType
		if wish.StrategyType == string(appsv1.RecreateDeploymentStrategyType) {
			wish.MaxSurge, wish.MaxUnavailable = nil, nil
			return wish
		}
	}
	if !seen.surge || !seen.unavailable {
		// He who writes parameters of a rolling update wants one, even if he wanted Recreate before. Then he wrote all of them:
		// nothing is noted of one that equals the hold's, and the API's default is not what he asked for.
		wish.StrategyType = written.StrategyType
		if recorded.StrategyType == string(appsv1.RecreateDeploymentStrategyType) && validRollingUpdate(written.MaxSurge, written.MaxUnavailable) {
			seen.surge, seen.unavailable = false, false
		}
	}
	if !seen.surge {
		wish.MaxSurge = copyOf(written.MaxSurge)
	}
	if !seen.unavailable {
		wish.MaxUnavailable = copyOf(written.MaxUnavailable)
	}
	return wish
}

// fieldSet names some of the user's fields.
type fieldSet struct{ strategyType, surge, unavailable, deadline bool }

// untouched are the fields that equal any of the rendered ones.
func untouched(written v1alpha1.UserFields, rendered []v1alpha1.UserFields) (seen fieldSet) {
	for _, r := range rendered {
		seen.strategyType = seen.strategyType || written.StrategyType == r.StrategyType
		seen.surge = seen.surge || equal(written.MaxSurge, r.MaxSurge)
		seen.unavailable = seen.unavailable || equal(written.MaxUnavailable, r.MaxUnavailable)
		seen.deadline = seen.deadline || equal(written.ProgressDeadlineSeconds, r.ProgressDeadlineSeconds)
	}
	return seen
}

func equalFields(a, b v1alpha1.UserFields) bool {
	return a.StrategyType == b.StrategyType && equal(a.MaxSurge, b.MaxSurge) &&
		equal(a.MaxUnavailable, b.MaxUnavailable) && equal(a.ProgressDeadlineSeconds, b.ProgressDeadlineSeconds)
}

func copyFields(f v1alpha1.UserFields) v1alpha1.UserFields {
	f.MaxSurge, f.MaxUnavailable = copyOf(f.MaxSurge), copyOf(f.MaxUnavailable)
	f.ProgressDeadlineSeconds = copyOf(f.ProgressDeadlineSeconds)
	return f
}

func ptr[T any](v T) *T { return &v }

func copyOf[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return ptr(*p)
}

func equal[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// validFields says whether the API server would accept the fields. What it would refuse is never
// recorded: it is left in the object, so that the user reads the API server's own message now and no
// release fails later.
func validFields(f v1alpha1.UserFields, minReadySeconds int32) bool {
	if d := f.ProgressDeadlineSeconds; d != nil && (*d < 0 || *d <= minReadySeconds) {
		return false
	}
	if f.StrategyType == string(appsv1.RecreateDeploymentStrategyType) {
		return f.MaxSurge == nil && f.MaxUnavailable == nil
	}
	if f.StrategyType != "" && f.StrategyType != string(appsv1.RollingUpdateDeploymentStrategyType) {
		return false
	}
	return validRollingUpdate(f.MaxSurge, f.MaxUnavailable)
}

func validRollingUpdate(maxSurge, maxUnavailable *intstr.IntOrString) bool {
	surge, okSurge := scaled(maxSurge)
	unavailable, okUnavailable := scaled(maxUnavailable)
	if okUnavailable && unavailable > 100 && maxUnavailable.Type == intstr.String {
		return false
	}
	return okSurge && okUnavailable && surge+unavailable > 0
}

// scaled reads a number or percentage as the API server validates it (against 100 pods, so that a
// percentage is itself); nil stands for the default.
func scaled(v *intstr.IntOrString) (int, bool) {
	if v == nil {
		return defaultPercent, true
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, 100, true)
	return n, err == nil && n >= 0
}

// defaultPercent is the API's default of maxSurge and maxUnavailable.
const defaultPercent = 25
