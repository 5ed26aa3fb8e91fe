// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"errors"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	appContainer = "app"
	// cpuRequest is what an app requests, in thousandths of a CPU: a pod's worth of work.
	cpuRequest = 100
)

// What the real one does unless told otherwise.
const (
	tolerance = 0.1
	// initialization is for how long after its start the CPU of a pod is looked at with suspicion, readinessDelay for how
	// long a pod that was never ready may change its mind about that.
	initialization, readinessDelay = 5 * time.Minute, 30 * time.Second
	// MetricWindow is the time that a measurement of the CPU of a pod is about.
	MetricWindow = 15 * time.Second
	// In a step there are twice as many pods, or scaleUpMinimum if that is more.
	scaleUpFactor, scaleUpMinimum = 2, 4
)

// autoscaler is the HorizontalPodAutoscaler's controller as in pkg/controller/podautoscaler of Kubernetes 1.36: it aims at
// all the CPU that the apps request. It acts every second and has no stabilisation, both of which only makes it wilder.
type autoscaler struct {
	w *world
	// load is how many pods' worth of work there is.
	load float64
	// wants is the decision: the model's, but where package fidelity puts the real one in its place.
	wants func(hpa *autoscalingv2.HorizontalPodAutoscaler, current int32, usage map[string]int64) (int32, error)
}

func newAutoscaler(w *world) *autoscaler {
	s := &autoscaler{w: w}
	s.wants = s.desired
	return s
}

// stored is what the user wants of it; nil: nothing.
func (s *autoscaler) stored() *autoscalingv2.HorizontalPodAutoscaler {
	hpa, _ := s.w.api.memory["autoscalers"][webKey].(*autoscalingv2.HorizontalPodAutoscaler)
	return hpa
}

func (s *autoscaler) set(on bool) {
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: webKey.Namespace, Name: webKey.Name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: webKey.Name},
			MinReplicas:    new(int32(1)), MaxReplicas: 12,
			Metrics: []autoscalingv2.MetricSpec{{
				Type: autoscalingv2.ContainerResourceMetricSourceType,
				ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
					Name: corev1.ResourceCPU, Container: appContainer,
					Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(100))},
				},
			}},
		},
	}
	switch {
	case on && s.stored() == nil:
		_ = s.w.api.create("user", hpa)
	case !on && s.stored() != nil:
		_ = s.w.api.remove("user", hpa, nil)
	}
}

// sync is reconcileAutoscaler: N = 0 turns it off, and what is out of bounds goes back to them.
func (s *autoscaler) sync() {
	hpa, d := s.stored(), s.w.deployment()
	if hpa == nil || d == nil || *d.Spec.Replicas == 0 || s.load == 0 {
		return
	}
	n := max(*hpa.Spec.MinReplicas, min(hpa.Spec.MaxReplicas, *d.Spec.Replicas))
	if n == *d.Spec.Replicas {
		wanted, err := s.wants(hpa, n, s.usage())
		if err != nil {
			return
		}
		n = wanted
	}
	if n != *d.Spec.Replicas && s.w.api.scale(autoscalerUser, webKey, n) == nil {
		s.w.user.replicas = *s.w.deployment().Spec.Replicas
	}
}

// usage is the CPU of each pod that runs, by name: those that serve share the work that the candidate's do not do instead.
func (s *autoscaler) usage() map[string]int64 {
	var running, ready []string
	for _, pod := range s.pods() {
		if pod.Status.Phase == corev1.PodRunning {
			running = append(running, pod.Name)
		}
		if isReady(pod) {
			ready = append(ready, pod.Name)
		}
	}
	out := map[string]int64{}
	for _, name := range running {
		out[name] = 0
	}
	for _, name := range ready {
		out[name] = int64(cpuRequest * s.load * float64(100-s.w.record().Weight) / 100 / float64(len(ready)))
	}
	return out
}

func (s *autoscaler) pods() (out []*corev1.Pod) {
	for _, o := range s.w.api.all(pods) {
		if o.GetDeletionTimestamp() == nil {
			out = append(out, o.(*corev1.Pod))
		}
	}
	return out
}

// errNoMetrics: there is nothing to decide about.
var errNoMetrics = errors.New("did not receive metrics for targeted pods")

// desired is computeReplicasForMetrics, and then convertDesiredReplicasWithRules.
func (s *autoscaler) desired(hpa *autoscalingv2.HorizontalPodAutoscaler, current int32, usage map[string]int64) (int32, error) {
	n, err := s.resourceReplicas(current, usage)
	most := min(hpa.Spec.MaxReplicas, max(scaleUpFactor*current, scaleUpMinimum))
	return max(*hpa.Spec.MinReplicas, min(most, n)), err
}

// resourceReplicas is GetResourceReplicas. Every pod that runs is measured.
func (s *autoscaler) resourceReplicas(current int32, usage map[string]int64) (int32, error) {
	used, ready, unready := int64(0), int64(0), int64(0)
	for _, pod := range s.pods() {
		if s.unready(pod) {
			unready++
			continue
		}
		ready++
		used += usage[pod.Name]
	}
	if ready == 0 {
		return current, errNoMetrics
	}
	// In whole percent.
	ratio := func(pods int64) float64 { return float64(used*100/(pods*cpuRequest)) / 100 }
	within := func(r float64) bool { return 1-tolerance <= r && r <= 1+tolerance }
	before := ratio(ready)
	if unready == 0 || before <= 1 {
		if within(before) {
			return current, nil
		}
		return int32(math.Ceil(before * float64(ready))), nil
	}
	// Those that are not ready count as idle when it grows.
	again := ratio(ready + unready)
	n := int32(math.Ceil(again * float64(ready+unready)))
	if within(again) || again < 1 || n < current {
		return current, nil
	}
	return n, nil
}

// unready is groupPods.
func (s *autoscaler) unready(pod *corev1.Pod) bool {
	c := condition(pod, corev1.PodReady)
	if pod.Status.Phase == corev1.PodPending || c == nil || pod.Status.StartTime == nil {
		return true
	}
	no, started := c.Status == corev1.ConditionFalse, pod.Status.StartTime.Time
	if started.Add(initialization).After(s.w.api.now) {
		return no || s.w.api.now.Before(c.LastTransitionTime.Add(MetricWindow))
	}
	return no && started.Add(readinessDelay).After(c.LastTransitionTime.Time)
}
