// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/webhook"
)

// Annotations of the native controller (k8s.io/kubernetes, pkg/controller/deployment/util).
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"
)

// notCopied are annotations of a Deployment that its ReplicaSets do not get, and that an undo keeps.
func notCopied(key string) bool {
	switch key {
	case corev1.LastAppliedConfigAnnotation, revisionAnnotation, historyAnnotation, desiredAnnotation, maxAnnotation:
		return true
	}
	return false
}

// deploymentController is the native one, function by function as in pkg/controller/deployment of
// Kubernetes 1.36 (the names are those there): revisions and annotations, proportional scaling, rolling
// update with clean-up of unhealthy pods first, Recreate, history limit, conditions. It reads from a cache
// of its own. What is left out: hash collisions, adoption, rollbackTo.
type deploymentController struct {
	api  *api
	view *view
	by   string
	// due is when it looks again although nothing changed: after a failure, and for progress deadlines.
	due time.Time
	// pass is syncDeployment: the model's, but where package fidelity puts the real one in its place.
	pass func(*appsv1.Deployment) error
}

func newDeploymentController(a *api) *deploymentController {
	c := &deploymentController{api: a, view: newView(a), by: "system:serviceaccount:kube-system:deployment-controller"}
	c.pass = c.syncOne
	return c
}

// resync is how often deadlines are looked at.
const resync = 20 * time.Second

// sync is syncDeployment for every Deployment in the cache.
func (c *deploymentController) sync(news bool) {
	if !news && c.api.now.Before(c.due) {
		return
	}
	c.due = c.api.now.Add(resync)
	for _, o := range c.view.all(deployments) {
		d := o.DeepCopyObject().(*appsv1.Deployment)
		if len(d.Spec.Template.Spec.Containers) == 0 {
			continue // Headgate's own, which only carries a wish
		}
		if c.pass(d) != nil {
			c.due = c.api.now // a conflict, a stale cache: again
		}
	}
}

func (c *deploymentController) syncOne(d *appsv1.Deployment) error {
	rsList := c.owned(d)
	if err := c.checkPaused(d); err != nil {
		return err
	}
	if d.Spec.Paused {
		return c.scaleOnly(d, rsList)
	}
	newRS, oldRSs, err := c.allReplicaSets(d, rsList, false)
	if err != nil {
		return err
	}
	for _, rs := range active(with(oldRSs, newRS)) {
		if n, err := strconv.Atoi(rs.Annotations[desiredAnnotation]); err == nil && int32(n) != *d.Spec.Replicas {
			return c.scaleOnly(d, rsList)
		}
	}
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return c.rolloutRecreate(d, rsList)
	}
	return c.rolloutRolling(d, rsList)
}

func (c *deploymentController) owned(d *appsv1.Deployment) []*appsv1.ReplicaSet {
	var out []*appsv1.ReplicaSet
	for _, o := range c.view.all(replicaSets) {
		if ref := metav1.GetControllerOf(o); ref != nil && ref.UID == d.UID {
			out = append(out, o.(*appsv1.ReplicaSet))
		}
	}
	slices.SortStableFunc(out, byCreation)
	return out
}

func byCreation(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
}

func with(old []*appsv1.ReplicaSet, newRS *appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	all := slices.Clone(old)
	if newRS != nil {
		all = append(all, newRS)
	}
	return all
}

func active(all []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	return slices.DeleteFunc(slices.Clone(all), func(rs *appsv1.ReplicaSet) bool { return *rs.Spec.Replicas == 0 })
}

func sum(all []*appsv1.ReplicaSet, of func(*appsv1.ReplicaSet) int32) (n int32) {
	for _, rs := range all {
		n += of(rs)
	}
	return n
}

func sizeOf(rs *appsv1.ReplicaSet) int32      { return *rs.Spec.Replicas }
func availableOf(rs *appsv1.ReplicaSet) int32 { return rs.Status.AvailableReplicas }

// fenceposts are maxSurge and maxUnavailable as numbers of pods.
func fenceposts(d *appsv1.Deployment) (surge, unavailable int32) {
	ru := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || ru == nil {
		return 0, 0
	}
	scaled := func(v *intstr.IntOrString, up bool) int32 {
		n, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(v, intstr.FromInt32(0)), int(*d.Spec.Replicas), up)
		return int32(n)
	}
	surge, unavailable = scaled(ru.MaxSurge, true), scaled(ru.MaxUnavailable, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	if unavailable > *d.Spec.Replicas {
		unavailable = *d.Spec.Replicas
	}
	return surge, unavailable
}

// allReplicaSets is getAllReplicaSetsAndSyncRevision.
func (c *deploymentController) allReplicaSets(d *appsv1.Deployment, rsList []*appsv1.ReplicaSet, create bool) (newRS *appsv1.ReplicaSet, old []*appsv1.ReplicaSet, err error) {
	var found *appsv1.ReplicaSet
	highest := int64(0)
	for _, rs := range rsList {
		if found == nil && webhook.EqualTemplate(&rs.Spec.Template, &d.Spec.Template) {
			found = rs
			continue
		}
		old = append(old, rs)
		highest = max(highest, revisionOf(rs))
	}
	if found != nil {
		newRS, err = c.syncRevision(d, found, highest+1)
		return newRS, old, err
	}
	if !create {
		return nil, old, nil
	}
	newRS, err = c.createNew(d, old, highest+1)
	return newRS, old, err
}

func revisionOf(rs *appsv1.ReplicaSet) int64 {
	n, _ := strconv.ParseInt(rs.Annotations[revisionAnnotation], 10, 64)
	return n
}

func (c *deploymentController) syncRevision(d *appsv1.Deployment, found *appsv1.ReplicaSet, revision int64) (*appsv1.ReplicaSet, error) {
	rs := found.DeepCopy()
	if annotateRS(d, rs, revision) || rs.Spec.MinReadySeconds != d.Spec.MinReadySeconds {
		rs.Spec.MinReadySeconds = d.Spec.MinReadySeconds
		return rs, c.api.update(c.by, rs, false)
	}
	changed := setRevision(d, rs.Annotations[revisionAnnotation])
	if hasDeadline(d) && progressing(&d.Status) == nil {
		c.setCondition(&d.Status, appsv1.DeploymentProgressing, corev1.ConditionTrue, "FoundNewReplicaSet", fmt.Sprintf("Found new replica set %q", rs.Name))
		changed = true
	}
	if !changed {
		return rs, nil
	}
	return rs, c.api.update(c.by, d.DeepCopy(), true)
}

func setRevision(d *appsv1.Deployment, revision string) bool {
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	changed := d.Annotations[revisionAnnotation] != revision
	d.Annotations[revisionAnnotation] = revision
	return changed
}

// annotateRS is SetNewReplicaSetAnnotations.
func annotateRS(d *appsv1.Deployment, rs *appsv1.ReplicaSet, revision int64) bool {
	before := maps.Clone(rs.Annotations)
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	for k, v := range d.Annotations {
		if !notCopied(k) {
			rs.Annotations[k] = v
		}
	}
	old, known := rs.Annotations[revisionAnnotation]
	if n := revisionOf(rs); n < revision {
		rs.Annotations[revisionAnnotation] = strconv.FormatInt(revision, 10)
		if known {
			rs.Annotations[historyAnnotation] = strings.Trim(rs.Annotations[historyAnnotation]+","+old, ",")
		}
	}
	return !maps.Equal(before, rs.Annotations)
}

func setReplicasAnnotations(d *appsv1.Deployment, rs *appsv1.ReplicaSet) bool {
	surge, _ := fenceposts(d)
	desired, most := strconv.Itoa(int(*d.Spec.Replicas)), strconv.Itoa(int(*d.Spec.Replicas+surge))
	changed := rs.Annotations[desiredAnnotation] != desired || rs.Annotations[maxAnnotation] != most
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	rs.Annotations[desiredAnnotation], rs.Annotations[maxAnnotation] = desired, most
	return changed
}

// Where the status is written in the middle of a pass, the pass goes on with what it had read, so that its
// last write is a conflict, and the next pass repeats it: as the real one does.

// createNew makes the ReplicaSet of a new template.
func (c *deploymentController) createNew(d *appsv1.Deployment, old []*appsv1.ReplicaSet, revision int64) (*appsv1.ReplicaSet, error) {
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Labels: maps.Clone(d.Spec.Template.Labels),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: new(int32(0)), MinReadySeconds: d.Spec.MinReadySeconds,
			Template: *d.Spec.Template.DeepCopy(), Selector: d.Spec.Selector.DeepCopy(),
		},
	}
	setHash(rs)
	*rs.Spec.Replicas = newReplicas(d, with(old, rs), rs)
	annotateRS(d, rs, revision)
	setReplicasAnnotations(d, rs)
	if err := c.api.create(c.by, rs); err != nil {
		return nil, err // one that is being collected, or a stale cache: later
	}
	changed := setRevision(d, strconv.FormatInt(revision, 10))
	if hasDeadline(d) {
		c.setCondition(&d.Status, appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetCreated", fmt.Sprintf("Created new replica set %q", rs.Name))
		changed = true
	}
	if !changed {
		return rs, nil
	}
	return rs, c.api.update(c.by, d.DeepCopy(), true)
}

// setHash makes the version the revision's hash, so that histories can be read.
func setHash(rs *appsv1.ReplicaSet) {
	version := versionOf(&rs.Spec.Template)
	rs.Name = webKey.Name + "-" + version
	for _, labels := range []map[string]string{rs.Labels, rs.Spec.Template.Labels, rs.Spec.Selector.MatchLabels} {
		labels[appsv1.DefaultDeploymentUniqueLabelKey] = version
	}
}

// newReplicas is NewRSNewReplicas.
func newReplicas(d *appsv1.Deployment, all []*appsv1.ReplicaSet, newRS *appsv1.ReplicaSet) int32 {
	n, size := *d.Spec.Replicas, *newRS.Spec.Replicas
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return n
	}
	surge, _ := fenceposts(d)
	total := sum(all, sizeOf)
	if total >= n+surge {
		return size
	}
	return size + min(n+surge-total, n-size)
}

// scaleOnly is dc.sync: what happens while paused, and when N has changed.
func (c *deploymentController) scaleOnly(d *appsv1.Deployment, rsList []*appsv1.ReplicaSet) error {
	newRS, old, err := c.allReplicaSets(d, rsList, false)
	if err != nil {
		return err
	}
	if err := c.scale(d, newRS, old); err != nil {
		return err
	}
	if d.Spec.Paused {
		if err := c.cleanup(d, old); err != nil {
			return err
		}
	}
	return c.writeStatus(d, c.status(d, with(old, newRS), newRS))
}

func (c *deploymentController) scale(d *appsv1.Deployment, newRS *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) error {
	n := *d.Spec.Replicas
	if only := activeOrLatest(newRS, old); only != nil {
		_, err := c.resize(d, only, n, false)
		return err
	}
	if saturated(d, newRS) {
		for _, rs := range active(old) {
			if _, err := c.resize(d, rs, 0, false); err != nil {
				return err
			}
		}
		return nil
	}
	if d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return nil
	}
	all := active(with(old, newRS))
	sizes := proportional(d, all)
	for _, rs := range all {
		if _, err := c.resize(d, rs, sizes[rs.Name], true); err != nil {
			return err
		}
	}
	return nil
}

func activeOrLatest(newRS *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	switch all := active(with(old, newRS)); {
	case len(all) == 1:
		return all[0]
	case len(all) > 1 || (newRS == nil && len(old) == 0):
		return nil
	case newRS != nil:
		return newRS
	}
	return slices.MaxFunc(old, byCreation)
}

func saturated(d *appsv1.Deployment, rs *appsv1.ReplicaSet) bool {
	if rs == nil {
		return false
	}
	n, err := strconv.Atoi(rs.Annotations[desiredAnnotation])
	return err == nil && int32(n) == *d.Spec.Replicas && sizeOf(rs) == *d.Spec.Replicas && availableOf(rs) == *d.Spec.Replicas
}

// proportional are the sizes that all active ReplicaSets get when N has changed; it sorts them as the
// native controller does.
func proportional(d *appsv1.Deployment, all []*appsv1.ReplicaSet) map[string]int32 {
	surge, _ := fenceposts(d)
	allowed := int32(0)
	if *d.Spec.Replicas > 0 {
		allowed = *d.Spec.Replicas + surge
	}
	add := allowed - sum(all, sizeOf)
	slices.SortStableFunc(all, func(a, b *appsv1.ReplicaSet) int {
		if add > 0 {
			return cmp.Or(cmp.Compare(sizeOf(b), sizeOf(a)), byCreation(b, a))
		}
		return cmp.Or(cmp.Compare(sizeOf(b), sizeOf(a)), byCreation(a, b))
	})
	sizes, added := map[string]int32{}, int32(0)
	for _, rs := range all {
		sizes[rs.Name] = sizeOf(rs)
		if add != 0 {
			p := proportion(d, rs, add, added)
			sizes[rs.Name] += p
			added += p
		}
	}
	if add != 0 && len(all) > 0 {
		first := all[0].Name
		sizes[first] = max(0, sizes[first]+add-added)
	}
	return sizes
}

// proportion is GetReplicaSetProportion.
func proportion(d *appsv1.Deployment, rs *appsv1.ReplicaSet, add, added int32) int32 {
	if sizeOf(rs) == 0 || add == 0 || add == added {
		return 0
	}
	fraction, allowed := fraction(d, rs), add-added
	if add > 0 {
		return min(fraction, allowed)
	}
	return max(fraction, allowed)
}

func fraction(d *appsv1.Deployment, rs *appsv1.ReplicaSet) int32 {
	size := sizeOf(rs)
	if *d.Spec.Replicas == 0 {
		return -size
	}
	surge, _ := fenceposts(d)
	before, err := strconv.Atoi(rs.Annotations[maxAnnotation])
	if err != nil || before == 0 {
		if before = int(d.Status.Replicas); before == 0 {
			return 0
		}
	}
	wanted := float64(size*(*d.Spec.Replicas+surge)) / float64(before)
	return int32(math.Round(wanted)) - size
}

// resize is scaleReplicaSet. What was read stays as it was: the status at the end of the pass is made of it.
func (c *deploymentController) resize(d *appsv1.Deployment, rs *appsv1.ReplicaSet, n int32, force bool) (bool, error) {
	if sizeOf(rs) == n && !force {
		return false, nil
	}
	next := rs.DeepCopy()
	*next.Spec.Replicas = n
	if !setReplicasAnnotations(d, next) && sizeOf(rs) == n {
		return false, nil
	}
	if err := c.api.update(c.by, next, false); err != nil {
		return false, err
	}
	return sizeOf(rs) != n, nil
}

func (c *deploymentController) rolloutRolling(d *appsv1.Deployment, rsList []*appsv1.ReplicaSet) error {
	newRS, old, err := c.allReplicaSets(d, rsList, true)
	if err != nil {
		return err
	}
	want := min(newReplicas(d, with(old, newRS), newRS), *d.Spec.Replicas)
	if sizeOf(newRS) > *d.Spec.Replicas {
		want = *d.Spec.Replicas
	}
	changed, err := c.resize(d, newRS, want, false)
	if err != nil {
		return err
	}
	if !changed {
		changed = c.shrinkOld(d, newRS, old)
	}
	if !changed && complete(d, &d.Status) {
		if err := c.cleanup(d, old); err != nil {
			return err
		}
	}
	return c.rolloutStatus(d, with(old, newRS), newRS)
}

// shrinkOld is reconcileOldReplicaSets: unhealthy pods first, then within maxUnavailable. It says whether it did anything;
// a failure on the way counts as nothing.
func (c *deploymentController) shrinkOld(d *appsv1.Deployment, newRS *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) bool {
	if sum(old, sizeOf) == 0 {
		return false
	}
	_, unavailable := fenceposts(d)
	least := *d.Spec.Replicas - unavailable
	spare := sum(with(old, newRS), sizeOf) - least - (sizeOf(newRS) - availableOf(newRS))
	if spare <= 0 {
		return false
	}
	old = active(old)
	shrunk := int32(0)
	shrink := func(i int, by int32) error {
		next := old[i].DeepCopy()
		_, err := c.resize(d, next, sizeOf(next)-by, false)
		*next.Spec.Replicas -= by
		next.ResourceVersion = "" // what the update returned
		old[i], shrunk = next, shrunk+by
		return err
	}
	for i, rs := range old {
		if spare == 0 {
			break
		}
		less := min(spare, sizeOf(rs)-availableOf(rs))
		if less < 0 {
			return false // a status from before the ReplicaSet was made smaller; all of it waits for the next one
		}
		if less > 0 && shrink(i, less) != nil {
			return false
		}
		spare -= less
	}
	surplus := sum(with(old, newRS), availableOf) - least
	for i, rs := range old {
		if less := min(sizeOf(rs), surplus); less > 0 {
			if shrink(i, less) != nil {
				return false
			}
			surplus -= less
		}
	}
	return shrunk > 0
}

func (c *deploymentController) rolloutRecreate(d *appsv1.Deployment, rsList []*appsv1.ReplicaSet) error {
	newRS, old, err := c.allReplicaSets(d, rsList, false)
	if err != nil {
		return err
	}
	scaled := false
	for _, rs := range active(old) {
		changed, err := c.resize(d, rs, 0, false)
		if err != nil {
			return err
		}
		scaled = scaled || changed
	}
	if scaled || c.oldPodsRun(newRS, old) {
		return c.rolloutStatus(d, with(old, newRS), newRS)
	}
	if newRS == nil {
		if newRS, old, err = c.allReplicaSets(d, rsList, true); err != nil {
			return err
		}
	}
	if _, err := c.resize(d, newRS, *d.Spec.Replicas, false); err != nil {
		return err
	}
	if complete(d, &d.Status) {
		if err := c.cleanup(d, old); err != nil {
			return err
		}
	}
	return c.rolloutStatus(d, with(old, newRS), newRS)
}

func (c *deploymentController) oldPodsRun(newRS *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) bool {
	if sum(old, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.Replicas }) > 0 {
		return true
	}
	owners := map[types.UID]bool{}
	for _, rs := range old {
		owners[rs.UID] = newRS == nil || rs.UID != newRS.UID
	}
	return slices.ContainsFunc(c.view.all(pods), func(o client.Object) bool {
		ref := metav1.GetControllerOf(o)
		return ref != nil && owners[ref.UID] && o.(*corev1.Pod).Status.Phase != corev1.PodFailed
	})
}

// cleanup is cleanupDeployment: the history limit.
func (c *deploymentController) cleanup(d *appsv1.Deployment, old []*appsv1.ReplicaSet) error {
	if d.Spec.RevisionHistoryLimit == nil {
		return nil
	}
	old = slices.Clone(old)
	slices.SortStableFunc(old, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(a), revisionOf(b)) })
	for _, rs := range old[:max(0, len(old)-int(*d.Spec.RevisionHistoryLimit))] {
		if rs.Status.Replicas != 0 || sizeOf(rs) != 0 || rs.Generation > rs.Status.ObservedGeneration {
			continue
		}
		if err := c.api.remove(c.by, rs, nil); err != nil {
			return err
		}
	}
	return nil
}
