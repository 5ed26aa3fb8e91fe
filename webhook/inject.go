// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"math"

	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// PreStopSeconds is how long an app container goes on serving after its pod began to end, and what is
// added to the pod's grace for it. Endpoint removal reaches every node, ingress and sidecar within
// about a second or two; 5 s lost none of 11,901 requests of a rolling update (DESIGN.md §3).
const PreStopSeconds = 5

// InjectConfig is all that an injection depends on besides the pod.
type InjectConfig struct {
	// Image is the image of headgate-proxy; PullPolicy its pull policy (empty: the API's default).
	Image      string
	PullPolicy corev1.PullPolicy

	// Workload is the Deployment's name, Revision the pod-template-hash of the pod's ReplicaSet.
	Workload, Revision string

	// Services are the Services that select the pod; others must not be in it. They decide protocols.
	Services []corev1.Service

	// NamespaceLabels carry the Pod Security level that the namespace enforces.
	NamespaceLabels map[string]string
	// PodSecurityDefault is the level enforced where the namespace has no label, if the API server was
	// configured with one. Empty: privileged.
	PodSecurityDefault string

	// QuotaResources are the resource names that ResourceQuotas of the namespace constrain (for example
	// limits.cpu): a container without them would be refused.
	QuotaResources []corev1.ResourceName
	// LimitRanges are the items of the namespace's LimitRanges.
	LimitRanges []corev1.LimitRangeItem

	// XDSAddress (host:port), XDSName (TLS server name) and CA (PEM, possibly several certificates) are
	// how sidecars reach and recognise the xDS server.
	XDSAddress, XDSName, CA string
}

// Inject gives a pod the sidecar, or says why it can't have one. It never changes its input, knows
// no errors and no clock, and is idempotent: the API server calls the webhook again when another one
// changed the pod after it, and what others changed on Headgate's containers then (an image mirror,
// resources) is kept.
//
// The result differs from the pod only in what DESIGN.md §6 lists: two init containers in front, a
// token volume, labels and annotations; app containers keep everything but the ports of probes and
// hooks on captured ports, and a preStop where they had none. With a Skip it is the pod with the
// reason as annotation, if there is room for one.
func Inject(pod *corev1.Pod, cfg InjectConfig) (*corev1.Pod, Skip) {
	in := newInjection(pod, cfg)
	rules := []func() Skip{
		// These judge the pod as it is.
		in.wanted, in.reachable, in.namesFree, in.tokensReadable,
		// These change the result, and skip when that can't be done.
		in.capture, in.addContainers, in.delayShutdown, in.mark,
		// These judge the result.
		in.resourcesFit, in.smallEnough, in.podSecurityAllows,
	}
	for _, rule := range rules {
		if skip := rule(); skip.Skipped() {
			return skippedPod(pod, skip), skip
		}
	}
	return in.out, Skip{}
}

// injection is one call of Inject in the making.
type injection struct {
	cfg InjectConfig
	// pod is the input, never changed; out the result so far.
	pod, out *corev1.Pod
	// before is the injection that the pod already carries, nil when there is none. Its revision may be
	// another: a template that was exported from a running pod brings a whole sidecar along.
	before *v1alpha1.Injection
	// now is the injection that the result carries.
	now v1alpha1.Injection
}

func newInjection(pod *corev1.Pod, cfg InjectConfig) *injection {
	return &injection{
		cfg:    cfg,
		pod:    pod,
		out:    pod.DeepCopy(),
		before: priorInjection(pod),
		now:    v1alpha1.Injection{Workload: cfg.Workload, Revision: cfg.Revision},
	}
}

// priorInjection reads what an earlier call left. The annotation alone does not count (it may have
// been copied), nor do containers alone (they may be somebody else's), unless the sidecar was told the same:
// another webhook may have dropped the annotation.
func priorInjection(pod *corev1.Pod) *v1alpha1.Injection {
	proxy := initContainer(pod, v1alpha1.ProxyContainer)
	if proxy == nil {
		return nil
	}
	value, ok := pod.Annotations[v1alpha1.InjectionAnnotation]
	if !ok {
		value = envOf(proxy, injectionEnv)
	}
	before, err := v1alpha1.ParseInjection(value)
	if err != nil {
		return nil
	}
	return &before
}

// injectionEnv tells the sidecar what the annotation says.
const injectionEnv = "HEADGATE_INJECTION"

func envOf(c *corev1.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// sameRevision tells a second call for the same pod from a sidecar that a copied template brought.
func (in *injection) sameRevision() bool {
	return in.before != nil && in.before.Workload == in.cfg.Workload && in.before.Revision == in.cfg.Revision
}

// delayShutdown lets app containers serve until the world knows that the pod ends. All of them, not
// only those with captured ports: an app must not outlive the cache or proxy beside it. Native
// sidecars need nothing, they end after the app containers anyway.
func (in *injection) delayShutdown() Skip {
	spec := &in.out.Spec
	grace := effectiveGrace(spec.TerminationGracePeriodSeconds)
	if in.before == nil {
		grace = min(grace, math.MaxInt64-PreStopSeconds) + PreStopSeconds
	}
	added := false
	for i := range spec.Containers {
		added = addPreStop(&spec.Containers[i]) || added
	}
	if added {
		// The API refuses a sleep longer than the grace (DESIGN.md §3); another webhook may have
		// lowered the grace since the first call.
		grace = max(grace, PreStopSeconds)
	}
	spec.TerminationGracePeriodSeconds = &grace
	return Skip{}
}

// effectiveGrace reads a grace period as the API does: unset is 30 s, a negative one is 1 s.
func effectiveGrace(seconds *int64) int64 {
	switch {
	case seconds == nil:
		return corev1.DefaultTerminationGracePeriodSeconds
	case *seconds < 0:
		return 1
	default:
		return *seconds
	}
}

func addPreStop(c *corev1.Container) bool {
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		return false
	}
	if c.Lifecycle == nil {
		c.Lifecycle = &corev1.Lifecycle{}
	}
	c.Lifecycle.PreStop = &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: PreStopSeconds}}
	return true
}

func (in *injection) mark() Skip {
	setAnnotation(in.out, v1alpha1.InjectionAnnotation, in.now.String())
	delete(in.out.Annotations, v1alpha1.SkipAnnotation)
	if in.out.Labels == nil {
		in.out.Labels = map[string]string{}
	}
	in.out.Labels[v1alpha1.InjectedLabel] = "true"
	return Skip{}
}

// skippedPod says why, where the other annotations leave room for it. A reason that came with a copied template is
// about another pod.
func skippedPod(pod *corev1.Pod, skip Skip) *corev1.Pod {
	out := pod.DeepCopy()
	delete(out.Annotations, v1alpha1.SkipAnnotation)
	noteOnPod(out, v1alpha1.SkipAnnotation, skip.String())
	return out
}

func setAnnotation(pod *corev1.Pod, key, value string) {
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[key] = value
}

func initContainer(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	return nil
}
