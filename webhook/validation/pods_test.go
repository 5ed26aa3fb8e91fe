// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package validation asks the API server's own code whether it would store what the webhooks make of pods and
// Deployments. It is a module of its own because that code is all of k8s.io/kubernetes.
package validation

import (
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	k8sv1 "k8s.io/kubernetes/pkg/apis/core/v1"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	registry "k8s.io/kubernetes/pkg/registry/core/pod"
	"k8s.io/kubernetes/plugin/pkg/admission/limitranger"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/headgate/headgate/webhook"
)

// random calls check with n random choices, and says how often it was true.
func random(t *testing.T, n uint64, check func(c choices) bool) (yes uint64) {
	t.Helper()
	for seed := range n {
		if check(seeded(seed)) {
			yes++
		}
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
	return yes
}

func seeded(seed uint64) choices {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make(choices, 20+r.IntN(200))
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

// addSeeds gives the fuzzer something to begin with.
func addSeeds(f *testing.F) {
	for seed := range uint64(20) {
		f.Add([]byte(seeded(seed)))
	}
}

func TestInjectedPods(t *testing.T) {
	const pods = 5000
	if n := random(t, pods, func(c choices) bool { return checkPod(t, c) }); n < pods/20 {
		t.Errorf("only %d of %d pods were injected: that says little", n, pods)
	}
}

func FuzzInjectedPods(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, text []byte) { checkPod(t, text) })
}

// checkPod: a pod that the API server, the namespace's LimitRange and its Pod Security level accept is accepted as it
// comes out of the Pod webhook, gated and injected or not.
func checkPod(t *testing.T, c choices) (injected bool) {
	t.Helper()
	level := oneOf(&c, api.LevelPrivileged, api.LevelPrivileged, api.LevelBaseline, api.LevelRestricted)
	cfg := webhook.InjectConfig{
		Image: "example.com/headgate-proxy:1", Workload: "web", Revision: "6d4b75cb6d", XDSAddress: "headgate:15610", XDSName: "headgate",
		NamespaceLabels: map[string]string{api.EnforceLevelLabel: string(level)}, LimitRanges: c.limitRanges(), Services: c.services(),
		QuotaResources: oneOf(&c, nil, []corev1.ResourceName{"limits.cpu", "limits.memory"}, []corev1.ResourceName{"requests.ephemeral-storage"}),
	}
	limits := &corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: cfg.LimitRanges}}
	limits.Namespace, limits.Name = "shop", "limits"
	before, errs := admitted(t, c.pod(), limits)
	if len(errs) == 0 {
		before, errs = admitted(t, before, limits) // as it is again after a webhook
	}
	if len(errs) > 0 || !validLimits(t, limits) || !secure(t, before, level) {
		return false
	}
	if c.rarely(2) {
		before = webhook.CloseGate(before)
	}
	out, skip := webhook.Inject(before, cfg)
	after, errs := admitted(t, out, limits)
	if len(errs) > 0 {
		t.Errorf("skip %q: the API server refuses the result: %v", skip, errs.ToAggregate())
	}
	if !secure(t, after, level) {
		t.Errorf("skip %q: %s refuses the result", skip, level)
	}
	return !skip.Skipped()
}

func secure(t *testing.T, pod *corev1.Pod, level api.Level) bool {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := api.LevelVersion{Level: level, Version: api.LatestVersion()}
	return policy.AggregateCheckResults(evaluator.EvaluatePod(at, &pod.ObjectMeta, &pod.Spec)).Allowed
}

// admitted is the pod with the API's defaults and those of the LimitRange, and why it would not be stored.
func admitted(t *testing.T, pod *corev1.Pod, limits *corev1.LimitRange) (*corev1.Pod, field.ErrorList) {
	t.Helper()
	out := pod.DeepCopy()
	legacyscheme.Scheme.Default(out)
	var internal core.Pod
	if err := k8sv1.Convert_v1_Pod_To_core_Pod(out, &internal, nil); err != nil {
		t.Fatal(err)
	}
	if err := limitranger.PodMutateLimitFunc(limits, &internal); err != nil {
		t.Fatal(err)
	}
	registry.Strategy.PrepareForCreate(t.Context(), &internal)
	errs := registry.Strategy.Validate(t.Context(), &internal)
	if err := limitranger.PodValidateLimitFunc(limits, &internal); err != nil {
		errs = append(errs, field.Forbidden(field.NewPath("limitRange"), err.Error()))
	}
	if err := k8sv1.Convert_core_Pod_To_v1_Pod(&internal, out, nil); err != nil {
		t.Fatal(err)
	}
	return out, errs
}

func validLimits(t *testing.T, limits *corev1.LimitRange) bool {
	t.Helper()
	limits = limits.DeepCopy()
	legacyscheme.Scheme.Default(limits)
	var internal core.LimitRange
	if err := k8sv1.Convert_v1_LimitRange_To_core_LimitRange(limits, &internal, nil); err != nil {
		t.Fatal(err)
	}
	return len(corevalidation.ValidateLimitRange(&internal)) == 0
}
