// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/headgate/headgate/api/v1alpha1"
)

// ownResources are the resources of each of Headgate's two containers. A native sidecar's requests
// add to the pod's; those of `prepare` do not (it is over before the app starts, and the larger of
// the two counts), but a quota may insist that it has them.
//
// Requests are always set, but where the pod states the resource as a whole: an autoscaler by
// utilisation works on no pod with a container without a request. They are small, because whatever is
// requested for the sidecar dilutes the utilisation that the autoscaler sees: 5 % of the app's CPU
// within 10m and 100m, and 64 MiB, which hold Envoy and `headgate run` at work.
//
// Limits are set only where the namespace demands them: a CPU limit throttles every request that
// passes. (So a pod of the QoS class Guaranteed becomes Burstable.)
func ownResources(pod *corev1.Pod, cfg InjectConfig) (corev1.ResourceRequirements, Skip) {
	own := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		need := ownNeed(pod, cfg, name)
		if skip := need.fit(cfg.LimitRanges); skip.Skipped() {
			return own, skip
		}
		if need.request != nil {
			own.Requests[name] = *need.request
		}
		if need.limit != nil {
			own.Limits[name] = *need.limit
		}
	}
	if len(own.Limits) == 0 {
		own.Limits = nil
	}
	if len(own.Requests) == 0 {
		own.Requests = nil
	}
	return own, Skip{}
}

// statedForPod tells whether the pod states a resource as a whole (spec.resources).
func statedForPod(pod *corev1.Pod, name corev1.ResourceName) bool {
	r := pod.Spec.Resources
	if r == nil {
		return false
	}
	_, request := r.Requests[name]
	_, limit := r.Limits[name]
	return request || limit
}

// resourceNeed is the request and limit of one resource; nil means none.
type resourceNeed struct {
	name           corev1.ResourceName
	request, limit *resource.Quantity
	// room is the limit to take when one is needed: enough never to throttle or kill in practice.
	room resource.Quantity
}

func ownNeed(pod *corev1.Pod, cfg InjectConfig, name corev1.ResourceName) *resourceNeed {
	need := &resourceNeed{name: name}
	switch name {
	case corev1.ResourceCPU:
		need.request, need.room = cpuRequest(pod), resource.MustParse("1")
	case corev1.ResourceMemory:
		need.request, need.room = new(resource.MustParse("64Mi")), resource.MustParse("256Mi")
	default:
		need.room = resource.MustParse("64Mi") // logs; nothing else is written
		if quotaNames(cfg.QuotaResources, name, "requests."+name) {
			need.request = new(resource.MustParse("8Mi"))
		}
	}
	if quotaNames(cfg.QuotaResources, "limits."+name) {
		need.limit = new(need.room.DeepCopy())
	}
	if statedForPod(pod, name) {
		// The containers share it, quotas count it, and their requests together must not exceed it.
		need.request, need.limit = nil, nil
	}
	return need
}

func quotaNames(quota []corev1.ResourceName, names ...corev1.ResourceName) bool {
	return slices.ContainsFunc(names, func(n corev1.ResourceName) bool { return slices.Contains(quota, n) })
}

// cpuRequest is 5 % of what the app requests, at least 10m and at most 100m.
func cpuRequest(pod *corev1.Pod) *resource.Quantity {
	var app int64
	for _, c := range lastingContainers(pod) {
		app += min(c.Resources.Requests.Cpu().MilliValue(), 1<<40)
	}
	return resource.NewMilliQuantity(max(10, min(app/20, 100)), resource.DecimalSI)
}

// fit moves the request and limit to where the LimitRange items for containers accept them: these
// refuse a pod whose containers are outside min and max, and give a container without a limit the
// default one, which may be below its request.
func (n *resourceNeed) fit(items []corev1.LimitRangeItem) Skip {
	for _, item := range items {
		if item.Type == corev1.LimitTypeContainer {
			n.fitItem(item)
		}
	}
	// One item may have moved a bound past what another one accepts.
	for _, item := range items {
		if item.Type == corev1.LimitTypeContainer && n.outside(item) {
			return skipf(SkipLimitRange, "no %s request and limit for the sidecar satisfies the namespace's LimitRange; widen its min, max or maxLimitRequestRatio", n.name)
		}
	}
	return Skip{}
}

// fitItem moves the request and limit to where one item for containers accepts them.
func (n *resourceNeed) fitItem(item corev1.LimitRangeItem) {
	n.fitRequest(item)
	if n.wantsLimit(item) && n.limit == nil {
		n.limit = new(n.room.DeepCopy())
	}
	if most, ok := item.Max[n.name]; ok && n.limit.Cmp(most) > 0 {
		n.limit = &most
	}
	// Without a request the API would default it to the limit.
	if n.limit != nil && (n.request == nil || n.request.Cmp(*n.limit) > 0) {
		n.request = new(n.limit.DeepCopy())
	}
	n.fitRatio(item)
}

// fitRequest raises the request to the least, and takes the one that the container would be given anyway, so that it
// is counted.
func (n *resourceNeed) fitRequest(item corev1.LimitRangeItem) {
	if given, ok := item.DefaultRequest[n.name]; ok && n.request == nil {
		n.request = &given
	}
	if least, ok := item.Min[n.name]; ok && (n.request == nil || n.request.Cmp(least) < 0) {
		n.request = &least
	}
}

func (n *resourceNeed) wantsLimit(item corev1.LimitRangeItem) bool {
	for _, list := range []corev1.ResourceList{item.Max, item.Default, item.MaxLimitRequestRatio} {
		if _, ok := list[n.name]; ok {
			return true
		}
	}
	return false
}

// fitRatio raises the request until the limit is within the ratio: lowering the limit instead would
// throttle.
func (n *resourceNeed) fitRatio(item corev1.LimitRangeItem) {
	ratio, ok := item.MaxLimitRequestRatio[n.name]
	if !ok || ratio.MilliValue() <= 0 {
		return
	}
	least := n.limit.AsApproximateFloat64() / ratio.AsApproximateFloat64()
	if n.request.AsApproximateFloat64() >= least {
		return
	}
	if n.name == corev1.ResourceCPU {
		n.request = resource.NewMilliQuantity(int64(math.Ceil(least*1000)), resource.DecimalSI)
		return
	}
	n.request = resource.NewQuantity(int64(math.Ceil(least)), resource.BinarySI)
}

// outside tells whether the item refuses the request and limit.
func (n *resourceNeed) outside(item corev1.LimitRangeItem) bool {
	if n.request != nil && n.limit != nil && n.request.Cmp(*n.limit) > 0 {
		return true
	}
	if least, ok := item.Min[n.name]; ok && n.request.Cmp(least) < 0 {
		return true
	}
	if most, ok := item.Max[n.name]; ok && n.limit.Cmp(most) > 0 {
		return true
	}
	ratio, ok := item.MaxLimitRequestRatio[n.name]
	return ok && aboveRatio(*n.request, *n.limit, ratio)
}

// resourcesFit skips pods that LimitRange items for whole pods would refuse with the sidecar, and pods whose own
// statement of their resources leaves no room for what items for containers give to the sidecar.
func (in *injection) resourcesFit() Skip {
	requests := resourcehelper.PodRequests(in.out, resourcehelper.PodResourcesOptions{ExcludeOverhead: true})
	limits := resourcehelper.PodLimits(in.out, resourcehelper.PodResourcesOptions{ExcludeOverhead: true})
	for _, item := range in.cfg.LimitRanges {
		if item.Type != corev1.LimitTypePod {
			continue
		}
		if name, bound := exceeded(item, requests, limits); bound != "" {
			return skipf(SkipLimitRange, "with the sidecar the pod would exceed the %s %s of the namespace's LimitRange for pods; raise that", name, bound)
		}
	}
	if stated := in.out.Spec.Resources; stated != nil {
		together := resourcehelper.AggregateContainerRequests(in.out, resourcehelper.PodResourcesOptions{})
		item := corev1.LimitRangeItem{Max: stated.Requests}
		if name, bound := exceeded(item, together, nil); bound != "" {
			return skipf(SkipLimitRange, "the namespace's LimitRange gives the sidecar more %s than the pod's own request of %s leaves; raise that", name, bound)
		}
		item.Max = stated.Limits
		if name, bound := exceeded(item, nil, initContainer(in.out, v1alpha1.ProxyContainer).Resources.Limits); bound != "" {
			return skipf(SkipLimitRange, "the namespace's LimitRange gives the sidecar more %s than the pod's own limit of %s; raise that", name, bound)
		}
	}
	return Skip{}
}

// exceeded names the first resource of which there is more than the item's max, or too high a limit for the request,
// and that bound; empty when there is none.
func exceeded(item corev1.LimitRangeItem, requests, limits corev1.ResourceList) (corev1.ResourceName, string) {
	for _, name := range slices.Sorted(maps.Keys(item.Max)) {
		most := item.Max[name]
		if requests.Name(name, resource.DecimalSI).Cmp(most) > 0 || limits.Name(name, resource.DecimalSI).Cmp(most) > 0 {
			return name, most.String()
		}
	}
	for _, name := range slices.Sorted(maps.Keys(item.MaxLimitRequestRatio)) {
		if ratio := item.MaxLimitRequestRatio[name]; aboveRatio(requests[name], limits[name], ratio) {
			return name, "limit to request ratio of " + ratio.String()
		}
	}
	return "", ""
}

func aboveRatio(request, limit, ratio resource.Quantity) bool {
	return limit.AsApproximateFloat64() > ratio.AsApproximateFloat64()*request.AsApproximateFloat64()*(1+1e-9)
}
