// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"strings"

	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// podSecurityAllows skips pods that the namespace's Pod Security level accepts as they are, but would
// refuse with the sidecar: the init container needs NET_ADMIN, which baseline and restricted forbid,
// and a refused pod would not be created at all. A pod that the level refuses anyway is injected: if
// it exists nevertheless, its creator is exempt, and then the result is exempt as well.
func (in *injection) podSecurityAllows() Skip {
	level := podSecurityLevel(in.cfg)
	if level.Level == api.LevelPrivileged {
		return Skip{}
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil { // only a malformed list of checks is an error
		return skipf(SkipPodSecurity, "the Pod Security level %q can't be evaluated: %v", level.Level, err)
	}
	before := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &in.pod.ObjectMeta, &in.pod.Spec))
	if !before.Allowed {
		return Skip{}
	}
	after := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &in.out.ObjectMeta, &in.out.Spec))
	if after.Allowed {
		return Skip{}
	}
	return skipf(SkipPodSecurity, "the namespace enforces the Pod Security level %q, which refuses the sidecar's init container (%s); label the namespace pod-security.kubernetes.io/enforce=privileged to split this workload's requests",
		level.Level, strings.Join(after.ForbiddenReasons, ", "))
}

// podSecurityLevel is the level and version that the API server enforces in the namespace. As there,
// a label that can't be read counts as restricted.
func podSecurityLevel(cfg InjectConfig) api.LevelVersion {
	defaults := api.Policy{Enforce: api.LevelVersion{Level: api.LevelPrivileged, Version: api.LatestVersion()}}
	if cfg.PodSecurityDefault != "" {
		// An unknown level parses as restricted, the cautious reading.
		defaults.Enforce.Level, _ = api.ParseLevel(cfg.PodSecurityDefault)
	}
	p, _ := api.PolicyToEvaluate(cfg.NamespaceLabels, defaults)
	return p.Enforce
}
