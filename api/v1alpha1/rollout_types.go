// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Phase is where a rollout stands. The zero value means that nothing is recorded yet.
type Phase string

// Phases; the state diagram is in package rollout.
const (
	// PhaseIdle: stable is the template; no hold.
	PhaseIdle Phase = "Idle"
	// PhaseStarting: candidate pods are being created; weight 0.
	PhaseStarting Phase = "Starting"
	// PhaseStepping: weight and k of the step are in force, judged continuously.
	PhaseStepping Phase = "Stepping"
	// PhasePaused: by the user or for approval; the weight stays in force and is still judged.
	PhasePaused Phase = "Paused"
	// PhasePromoting: gates opened, then the user's fields back; a native rolling update, still judged.
	PhasePromoting Phase = "Promoting"
	// PhaseRollingBack: weight 0 until acknowledged, then k = 1 or the stable template.
	PhaseRollingBack Phase = "RollingBack"
	// PhaseQuarantined: one candidate pod kept, gate closed, weight 0, until the next template.
	PhaseQuarantined Phase = "Quarantined"
)

// RolloutSpec holds the user's wishes. Each names the revision it is about, so that a wish can't hit
// a later one; a wish about another revision than the current candidate is ignored. When a rollout ends,
// what was wished for it is removed, but for Retry, which asks for the next one.
type RolloutSpec struct {
	// Approve lets the rollout leave a step that waits for approval.
	// +optional
	Approve *StepWish `json:"approve,omitempty"`
	// Promote skips the remaining steps.
	// +optional
	Promote *RevisionWish `json:"promote,omitempty"`
	// Retry starts a rejected revision again from the first step.
	// +optional
	Retry *RevisionWish `json:"retry,omitempty"`
}

// RevisionWish is a wish about one revision.
type RevisionWish struct {
	// Revision is a pod-template-hash.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Revision string `json:"revision"`
}

// StepWish is a wish about one step of one revision.
type StepWish struct {
	// Revision is a pod-template-hash.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Revision string `json:"revision"`
	// Step counts from 0.
	// +kubebuilder:validation:Minimum=0
	Step int32 `json:"step"`
}

// RolloutStatus is the record of a workload: what is stable, what is tried, and why.
type RolloutStatus struct {
	// DeploymentUID is the Deployment this record was written for; for any other one it counts as none.
	// +optional
	DeploymentUID types.UID `json:"deploymentUID,omitempty"`
	// DeploymentGeneration is the newest generation of the Deployment that was decided about; an older
	// one is a stale read.
	// +optional
	DeploymentGeneration int64 `json:"deploymentGeneration,omitempty"`
	// Phase is where the rollout stands.
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// PhaseSince is when the phase began.
	// +optional
	PhaseSince *metav1.MicroTime `json:"phaseSince,omitempty"`
	// ResumePhase is the phase that a pause interrupted, Promoting too while that is paused; while RollingBack it is Promoting
	// when the promotion had begun (stable may have lost pods already). Empty otherwise.
	// +optional
	ResumePhase Phase `json:"resumePhase,omitempty"`

	// AwaitingApproval says that the step is accepted and waits for somebody to approve it.
	// +optional
	AwaitingApproval bool `json:"awaitingApproval,omitempty"`

	// Stable is the revision proven good. Empty until the first version is complete.
	// +optional
	Stable Revision `json:"stable,omitempty"`
	// StableServices names the Services that have led to stable's pods ("web"), and those of their ports that led to a port
	// of these ("web:80/TCP"); sorted, at most 64. What is changed together with the version, so that it leads to the
	// candidate alone, is told by that from what never led to stable.
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=96
	// +optional
	StableServices []string `json:"stableServices,omitempty"`
	// Candidate is the revision being tried, or the quarantined one. Empty when Idle.
	// +optional
	Candidate Revision `json:"candidate,omitempty"`

	// StartedAt is when this rollout began.
	// +optional
	StartedAt *metav1.MicroTime `json:"startedAt,omitempty"`
	// Replicas is N when this rollout began.
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
	// Autoscaled says that a HorizontalPodAutoscaler had the workload when this rollout began.
	// +optional
	Autoscaled bool `json:"autoscaled,omitempty"`
	// Policy is the policy's spec when this rollout began, without its selector and with its templates in it, as JSON: a
	// policy changed mid-rollout applies from the next one (but suspend at once).
	// +kubebuilder:validation:MaxLength=131072
	// +optional
	Policy string `json:"policy,omitempty"`
	// Step is the current step, counted from 0. Written also when 0, as the weights are: kubectl's table leaves blank what is
	// not there.
	// +optional
	Step int32 `json:"step"`
	// StepSince is when the step's weight came into force, its k pods being ready for it; unset before that.
	// +optional
	StepSince *metav1.MicroTime `json:"stepSince,omitempty"`
	// JudgedFor is the judged time used up before the current step; approvals, pauses and outages without data
	// are not counted.
	// +optional
	JudgedFor metav1.Duration `json:"judgedFor,omitempty"`
	// PausedFor is the time within the current step that does not count, because of approvals, pauses and outages
	// without data that are over.
	// +optional
	PausedFor metav1.Duration `json:"pausedFor,omitempty"`
	// BlindSince is since when the analysis has had no usable data, as far as it said so; unset while it has.
	// +optional
	BlindSince *metav1.MicroTime `json:"blindSince,omitempty"`

	// UnconnectedSince is since when most of stable's sidecars have not been connected while the candidate starts;
	// unset while they are, and in every other phase.
	// +optional
	UnconnectedSince *metav1.MicroTime `json:"unconnectedSince,omitempty"`

	// CandidateReplicas is k.
	// +optional
	CandidateReplicas int32 `json:"candidateReplicas,omitempty"`
	// Weight is the candidate's share of requests that is wanted, in percent. What all sidecars are
	// told derives from this field, Stable and Candidate alone.
	// +optional
	Weight int32 `json:"weight"`
	// WeightSince is when Weight was last changed, or kept for another step; sidecars that stay silent for too long after
	// it are left out.
	// +optional
	WeightSince *metav1.MicroTime `json:"weightSince,omitempty"`
	// WeightInForce is the share that every connected sidecar has acknowledged.
	// +optional
	WeightInForce int32 `json:"weightInForce"`
	// Weights are the weights that have been in force in this rollout, and when it was paused; newest last, at most 64: the
	// first ones and the newest. Before the first it was 0, of step 0.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Weights []WeightRecord `json:"weights,omitempty"`
	// Unacknowledged names sidecars (pods) left out because they were silent for too long, and those of stable that were not
	// connected when the weight fell, and have not been since: they may go on with the weight before. At most 10.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +optional
	Unacknowledged []string `json:"unacknowledged,omitempty"`

	// Verdict is the analysis' last word on the candidate.
	// +optional
	Verdict *Verdict `json:"verdict,omitempty"`
	// JudgeState is what the judge needs to go on after a restart, as JSON. Opaque, versioned, bounded.
	// +kubebuilder:validation:MaxLength=49152
	// +optional
	JudgeState string `json:"judgeState,omitempty"`

	// UngatedPods names candidate pods that came without a gate because the Pod webhook could not act.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +optional
	UngatedPods []string `json:"ungatedPods,omitempty"`

	// Rejected is the template that failed last.
	// +optional
	Rejected *Rejection `json:"rejected,omitempty"`
	// UsedBypasses are the digests of bypass reasons that were used; newest last.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50
	// +optional
	UsedBypasses []string `json:"usedBypasses,omitempty"`
	// Hold is the copy of the annotation of that name, from which a wiped one is restored.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Hold string `json:"hold,omitempty"`

	// History are the ends of past rollouts; newest last, at most MaxHistory.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +optional
	History []HistoryEntry `json:"history,omitempty"`

	// Conditions: Healthy, Judged (see conditions.go).
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// WeightRecord says since when the analysis has been told this: a weight of a step has been in force.
type WeightRecord struct {
	// Since is when every connected sidecar had acknowledged it, or when what is said below became so.
	Since metav1.MicroTime `json:"since"`
	// Step is counted from 0.
	Step int32 `json:"step"`
	// Weight is the candidate's share of requests, in percent.
	Weight int32 `json:"weight"`
	// Waiting says that the current step's own weight is not in force yet: it is the step after Step, or one that begins
	// or begins again.
	// +optional
	Waiting bool `json:"waiting,omitempty"`
	// Paused says that the rollout was paused, by its user or for approval.
	// +optional
	Paused bool `json:"paused,omitempty"`
	// JudgedFor is the judged time used up before the current step; unset: none.
	// +optional
	JudgedFor *metav1.Duration `json:"judgedFor,omitempty"`
}

// Revision names one ReplicaSet of the workload.
type Revision struct {
	// Hash is its pod-template-hash. Empty while the ReplicaSet does not exist yet.
	// +optional
	Hash string `json:"hash,omitempty"`
	// Template is the digest of its pod template without that label.
	// +optional
	Template string `json:"template,omitempty"`
}

// Result is what the analysis says.
type Result string

// Results.
const (
	ResultUndecided    Result = "Undecided"
	ResultPass         Result = "Pass"
	ResultFail         Result = "Fail"
	ResultHold         Result = "Hold"
	ResultInconclusive Result = "Inconclusive"
)

// Verdict is the analysis' word with its evidence.
type Verdict struct {
	// Result is the verdict.
	Result Result `json:"result"`
	// Cause is a word for machines: ErrorRate, CrashLoop, ...
	// +optional
	Cause string `json:"cause,omitempty"`
	// Message is one plain sentence.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Message string `json:"message,omitempty"`
	// Evidence is what it rests on.
	// +optional
	Evidence *Evidence `json:"evidence,omitempty"`
}

// Evidence is what a verdict rests on.
type Evidence struct {
	// CandidateRequests and the others are counts since the rollout began.
	CandidateRequests int64 `json:"candidateRequests"`
	CandidateErrors   int64 `json:"candidateErrors"`
	StableRequests    int64 `json:"stableRequests"`
	StableErrors      int64 `json:"stableErrors"`
	// Harm is the e-value against the candidate, as a decimal number; rolled back at HarmThreshold.
	// +optional
	Harm string `json:"harm,omitempty"`
	// +optional
	HarmThreshold string `json:"harmThreshold,omitempty"`
	// Acceptance is the e-value for the candidate in this step; accepted at AcceptanceThreshold.
	// +optional
	Acceptance string `json:"acceptance,omitempty"`
	// +optional
	AcceptanceThreshold string `json:"acceptanceThreshold,omitempty"`
	// Rates are the compared rates one by one: that of errors, for each latency bound that of requests
	// that took longer, and the policy's own.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	Rates []RateEvidence `json:"rates,omitempty"`
	// Metrics are the policy's own metrics, as they were last; its rates are among Rates.
	// +kubebuilder:validation:MaxItems=10
	// +listType=map
	// +listMapKey=name
	// +optional
	Metrics []MetricEvidence `json:"metrics,omitempty"`
	// Looks is how often it was looked.
	// +optional
	Looks int64 `json:"looks,omitempty"`
	// StepTime is for how long the step has been judged: outages, however short, are left out.
	// +optional
	StepTime *metav1.Duration `json:"stepTime,omitempty"`
	// Missing says in words what data is missing.
	// +optional
	Missing string `json:"missing,omitempty"`
}

// RateEvidence is what there is about one compared rate.
type RateEvidence struct {
	// Name is ErrorRate, Latency/ and the bound in seconds, or Metric/ and the metric's name.
	// +kubebuilder:validation:MaxLength=80
	Name string `json:"name"`
	// CandidateRequests and the others are counts since the rollout began; events are errors or slow
	// requests. Latency leaves out pods that are warming up.
	CandidateRequests int64 `json:"candidateRequests"`
	CandidateEvents   int64 `json:"candidateEvents"`
	StableRequests    int64 `json:"stableRequests"`
	StableEvents      int64 `json:"stableEvents"`
	// CandidateRange and StableRange are where the shares of events are, in percent ("0.12 to 0.4"), in 99 of
	// 100 rollouts.
	// +optional
	CandidateRange string `json:"candidateRange,omitempty"`
	// +optional
	StableRange string `json:"stableRange,omitempty"`
	// Harm is the rate's e-value against the candidate, Acceptance the one for it in this step.
	// +optional
	Harm string `json:"harm,omitempty"`
	// +optional
	Acceptance string `json:"acceptance,omitempty"`
	// DryRun says that the verdict does not rest on it.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
	// Missing says why one of the policy's own had no value when it was asked for last; empty when it had one.
	// +optional
	Missing string `json:"missing,omitempty"`
}

// MetricEvidence is what there is about one of the policy's own metrics.
type MetricEvidence struct {
	// Name is the metric's.
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Value is the last one, as a decimal number; empty while there is none.
	// +optional
	Value string `json:"value,omitempty"`
	// Stable is the value of stable that it was compared with.
	// +optional
	Stable string `json:"stable,omitempty"`
	// Outside is how many values in a row were outside the range; 3 decide.
	// +optional
	Outside int32 `json:"outside,omitempty"`
	// DryRun says that the verdict does not rest on it.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
	// Missing says why it had no value when it was asked for last; empty when it had one.
	// +optional
	Missing string `json:"missing,omitempty"`
}

// Rejection remembers a template that failed, so that a tool that applies it again does not loop.
type Rejection struct {
	// Template is its digest, Revision its pod-template-hash.
	Template string `json:"template"`
	// +optional
	Revision string `json:"revision,omitempty"`
	// Times is how often it failed in a row.
	Times int32 `json:"times"`
	// Until is when it may be tried again without being asked.
	Until metav1.Time `json:"until"`
	// Message says why it failed.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Message string `json:"message,omitempty"`
}

// Outcome is how a rollout ended.
type Outcome string

// Outcomes.
const (
	OutcomePromoted   Outcome = "Promoted"
	OutcomeRolledBack Outcome = "RolledBack"
	// OutcomeAborted: the user put the stable template back.
	OutcomeAborted Outcome = "Aborted"
	// OutcomeSuperseded: the user put a third template in.
	OutcomeSuperseded Outcome = "Superseded"
	// OutcomeReleased: it went out ungated (bypass, policy gone, stable was down).
	OutcomeReleased Outcome = "Released"
)

// MaxHistory is how many ends of rollouts a record keeps.
const MaxHistory = 10

// HistoryEntry is the end of one rollout.
type HistoryEntry struct {
	Outcome Outcome `json:"outcome"`
	// From and To are pod-template-hashes.
	From string `json:"from"`
	To   string `json:"to"`
	// StartedAt and EndedAt bound it.
	StartedAt metav1.Time `json:"startedAt"`
	EndedAt   metav1.Time `json:"endedAt"`
	// Weights are the weights that have been in force; newest last.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Weights []WeightRecord `json:"weights,omitempty"`
	// Replicas is N when it began, Autoscaled says that a HorizontalPodAutoscaler had the workload then.
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
	// +optional
	Autoscaled bool `json:"autoscaled,omitempty"`
	// Policy is what it was judged by, as the record's policy is kept, but without metrics and where they are asked for: these are
	// long, and what they said can't be asked for again.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Policy string `json:"policy,omitempty"`
	// Verdict is the last one.
	// +optional
	Verdict *Verdict `json:"verdict,omitempty"`
}

// Rollout is Headgate's record of one workload: same namespace and name as the Deployment that owns it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ro
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Step",type=integer,JSONPath=`.status.step`
// +kubebuilder:printcolumn:name="Weight",type=integer,JSONPath=`.status.weightInForce`
// +kubebuilder:printcolumn:name="Stable",type=string,JSONPath=`.status.stable.hash`
// +kubebuilder:printcolumn:name="Candidate",type=string,JSONPath=`.status.candidate.hash`
// +kubebuilder:printcolumn:name="Verdict",type=string,JSONPath=`.status.verdict.result`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.verdict.message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Rollout struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec RolloutSpec `json:"spec,omitempty"`
	// +optional
	Status RolloutStatus `json:"status,omitempty"`
}

// RolloutList is a list of Rollout.
//
// +kubebuilder:object:root=true
type RolloutList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Rollout `json:"items"`
}
