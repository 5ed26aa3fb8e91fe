// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Condition types and reasons. Messages carry no times and no counters, so that they don't flap.
const (
	// ConditionAccepted on a policy: True when it is in use.
	ConditionAccepted = "Accepted"

	// ReasonAccepted: the policy is valid and in use.
	ReasonAccepted = "Accepted"
	// ReasonConflict: an older policy selects the same workload and wins; both say so.
	ReasonConflict = "Conflict"
	// ReasonInvalid: the policy can't be used; the message says what to change.
	ReasonInvalid = "Invalid"

	// ConditionHealthy on a Rollout: False while a failed candidate is the Deployment's template.
	ConditionHealthy = "Healthy"
	// ConditionJudged on a Rollout: False while the analysis can't work (no data, bad query, no split).
	ConditionJudged = "Judged"

	// ReasonDeadlineExceeded is written on the Deployment's Progressing condition, with status False,
	// when a candidate failed: native tools (kubectl rollout status, helm --wait, Argo CD, kstatus)
	// read exactly this reason as failure.
	ReasonDeadlineExceeded = "ProgressDeadlineExceeded"
)

// Causes of a Fail that need no metrics. The analysis has its own (ErrorRate, ...).
const (
	CauseCrashLoop        = "CrashLoop"
	CauseImagePull        = "ImagePull"
	CauseOOMKilled        = "OOMKilled"
	CauseReadinessLost    = "ReadinessLost"
	CauseNoRoom           = "NoRoom" // unschedulable or quota: not a bad version
	CauseProgressDeadline = "ProgressDeadline"
	CauseSidecarSilent    = "SidecarSilent"
	CauseNoSidecar        = "NoSidecar"     // the candidate's pods can't have a sidecar: nothing splits requests to them
	CauseConfiguration    = "Configuration" // the containers can't be created as the template says
	CausePodWebhook       = "PodWebhookUnavailable"
	CauseStillServing     = "StillServing" // pods serve that this rollout has not let out: not a bad version
)
