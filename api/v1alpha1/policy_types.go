// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RolloutPolicySpec says which workloads are rolled out, in which steps, and what decides.
// The zero value is a good canary policy for every Deployment it can see.
type RolloutPolicySpec struct {
	// Selector chooses Deployments by their labels. Empty: all of them.
	// +optional
	Selector metav1.LabelSelector `json:"selector,omitempty"`

	// Strategy is how a candidate is tried.
	// +kubebuilder:validation:Enum=Canary
	// +kubebuilder:default=Canary
	// +optional
	Strategy Strategy `json:"strategy,omitempty"`

	// Steps are the stages of a rollout, in order; at least one sends requests or waits for approval. Default: weights 10, 25, 50.
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:XValidation:rule="self.map(s, s.weight).isSorted()",message="weights of steps must not decrease: order the steps by weight"
	// +kubebuilder:validation:XValidation:rule="size(self) == 0 || self.exists(s, s.weight > 0 || has(s.approval) && s.approval)",message="no step sends a request to the candidate, and none waits for approval, so every candidate would be promoted untested: give a step a weight above 0, or approval: true"
	// +listType=atomic
	// +optional
	Steps []Step `json:"steps,omitempty"`

	// MaxDuration bounds the judged part of a rollout (approvals, pauses and outages without data are not
	// counted); steps shrink to fit. Default 4m, because pipelines wait 5 minutes by default.
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=18
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="it must be longer than 0s; leave it out for the default, 4m"
	// +optional
	MaxDuration *metav1.Duration `json:"maxDuration,omitempty"`

	// ProgressDeadline bounds how long candidate pods may take to start. Default 2m.
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=18
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="it must be longer than 0s; leave it out for the default, 2m"
	// +optional
	ProgressDeadline *metav1.Duration `json:"progressDeadline,omitempty"`

	// Analysis says what is judged.
	// +optional
	Analysis Analysis `json:"analysis,omitempty"`

	// OnFailure says what stays of a failed candidate. Quarantine keeps one pod, gate closed, weight
	// 0; Revert puts the stable template back; Auto reverts workloads whose candidates must not idle
	// along (at most 5 replicas under an autoscaler) and quarantines the others.
	// +kubebuilder:validation:Enum=Quarantine;Revert;Auto
	// +kubebuilder:default=Auto
	// +optional
	OnFailure OnFailure `json:"onFailure,omitempty"`

	// OnInconclusive says what happens when a step's time is up and there was too little traffic to know.
	// +kubebuilder:validation:Enum=Advance;Hold;RollBack
	// +kubebuilder:default=Advance
	// +optional
	OnInconclusive OnInconclusive `json:"onInconclusive,omitempty"`

	// OnBlind says what happens after ten minutes without data.
	// +kubebuilder:validation:Enum=Hold;RollBack
	// +kubebuilder:default=Hold
	// +optional
	OnBlind OnBlind `json:"onBlind,omitempty"`

	// Rollback says whether the return to an earlier stable revision goes out at once or as a rollout.
	// +kubebuilder:validation:Enum=Immediate;Managed
	// +kubebuilder:default=Immediate
	// +optional
	Rollback Rollback `json:"rollback,omitempty"`

	// QuarantineTTL is how long a failed candidate is kept before the stable template is put back. Default 24h.
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=18
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="it must be longer than 0s; leave it out for the default, 24h"
	// +optional
	QuarantineTTL *metav1.Duration `json:"quarantineTTL,omitempty"`

	// Suspend takes the workloads out of Headgate's hands, at once.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// Strategy is how a candidate is tried.
type Strategy string

// StrategyCanary shifts request weights through sidecars, gates closed until promotion.
const StrategyCanary Strategy = "Canary"

// OnFailure is what stays of a failed candidate.
type OnFailure string

// The values of OnFailure; see RolloutPolicySpec.OnFailure.
const (
	OnFailureQuarantine OnFailure = "Quarantine"
	OnFailureRevert     OnFailure = "Revert"
	OnFailureAuto       OnFailure = "Auto"
)

// OnInconclusive is what follows a step that could not be judged.
type OnInconclusive string

// The values of OnInconclusive; see RolloutPolicySpec.OnInconclusive.
const (
	OnInconclusiveAdvance  OnInconclusive = "Advance"
	OnInconclusiveHold     OnInconclusive = "Hold"
	OnInconclusiveRollBack OnInconclusive = "RollBack"
)

// OnBlind is what follows ten minutes without data.
type OnBlind string

// The values of OnBlind; see RolloutPolicySpec.OnBlind.
const (
	OnBlindHold     OnBlind = "Hold"
	OnBlindRollBack OnBlind = "RollBack"
)

// Rollback is how the return to an earlier stable revision is treated (row 5).
type Rollback string

// The values of Rollback; see RolloutPolicySpec.Rollback.
const (
	RollbackImmediate Rollback = "Immediate"
	RollbackManaged   Rollback = "Managed"
)

// Step is one stage of a rollout.
type Step struct {
	// Weight is the share of requests for the candidate, in percent. 0 starts pods and sends nothing.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=99
	Weight int32 `json:"weight"`

	// The percentage is checked by a pattern, because the API server reckons the cost of a CEL rule on
	// a number-or-string with the largest string that fits into a request, and refuses the rule.

	// Replicas is k, the number of candidate pods: a number or a percentage of N, rounded up, at
	// least 1. Default: weight percent of N.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:Pattern=`^([1-9][0-9]?|100)%$`
	// +kubebuilder:validation:XValidation:rule="type(self) != int || self >= 1 && self <= 10000",message="replicas must be a number from 1 to 10000 or a percentage from 1% to 100%"
	// +optional
	Replicas *IntOrPercent `json:"replicas,omitempty"`

	// MinDuration is how long the step lasts at least, once its weight is in force. Default 0s; it
	// counts towards maxDuration.
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	// +kubebuilder:validation:Type=string
	// +optional
	MinDuration *metav1.Duration `json:"minDuration,omitempty"`

	// Approval keeps the rollout in this step until somebody approves it.
	// +optional
	Approval bool `json:"approval,omitempty"`
}

// Analysis says what is judged.
type Analysis struct {
	// Prometheus is where to ask. Default: the address the chart was installed with.
	// +optional
	Prometheus *PrometheusRef `json:"prometheus,omitempty"`

	// SuccessRate compares the candidate's error rate with stable's. On by default.
	// +optional
	SuccessRate SuccessRate `json:"successRate,omitempty"`

	// Latency compares how many requests are slow, by several bounds at once, with stable's. On by default.
	// +optional
	Latency Latency `json:"latency,omitempty"`

	// Metrics are the user's own, as PromQL. Their queries together may have 16,384 characters.
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:XValidation:rule="self.map(m, (has(m.query) ? size(m.query) : 0) + (has(m.rate) ? size(m.rate.numerator) + size(m.rate.denominator) : 0)).sum() <= 16384",message="the queries of all metrics together must not be longer than 16384 characters"
	// +kubebuilder:validation:XValidation:rule="self.filter(m, has(m.rate)).size() <= 3",message="at most 3 metrics can be rates"
	// +listType=map
	// +listMapKey=name
	// +optional
	Metrics []Metric `json:"metrics,omitempty"`
}

// PrometheusRef is anything that speaks Prometheus' HTTP API.
//
// The rule about the URL is here because one of a string would repeat the string when it refuses it.
//
// +kubebuilder:validation:XValidation:rule="!self.url.matches('[@?#]')",fieldPath=".url",message="the URL must have no @, no query (?) and no fragment (#), because it is shown to others: put credentials into a Secret and name it in secretRef"
type PrometheusRef struct {
	// URL is the base address, without /api/v1. It is shown in Rollouts and Events, so it can hold no credentials, as in
	// https://name:password@host; those are for SecretRef. A query or a fragment would say nothing besides.
	// +kubebuilder:validation:Pattern=`^https?://[^ ]+$`
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url"`

	// SecretRef names a Secret of the workload's namespace, that of a ClusterRolloutPolicy too, with what the address asks
	// for. Its keys: username and password, or token; ca.crt; tls.crt and tls.key; serverName; and header. with a header's
	// name after it, as header.X-Scope-OrgID. Headgate needs the right to get it (docs/analysis.md). Default: none is used.
	// +optional
	SecretRef *SecretRef `json:"secretRef,omitempty"`
}

// SecretRef names a Secret.
type SecretRef struct {
	// Name is the Secret's.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// SuccessRate is the comparison of error rates between candidate and stable.
type SuccessRate struct {
	// Disabled turns the comparison off.
	// +optional
	Disabled bool `json:"disabled,omitempty"`

	// Objective is how many percent of all requests are to succeed, as in "99.9". It sets by how much the candidate's error
	// rate may be above stable's, on top of a ratio, before that speaks against it: a tenth of what the objective leaves for
	// errors, so 0.01 percentage points for "99.9". Default: 0.1 points, as with "99".
	// +kubebuilder:validation:Pattern=`^[0-9]{1,2}(\.[0-9]{1,6})?$`
	// +kubebuilder:validation:MaxLength=9
	// +kubebuilder:validation:XValidation:rule="double(self) > 0.0",message="an objective must be above 0 and below 100, in percent"
	// +optional
	Objective *string `json:"objective,omitempty"`
}

// Latency is the comparison of latencies between candidate and stable.
//
// +kubebuilder:validation:XValidation:rule="!has(self.objective) || has(self.bound)",message="an objective needs a bound: within what time so many requests are to be answered"
type Latency struct {
	// Disabled turns the comparison off.
	// +optional
	Disabled bool `json:"disabled,omitempty"`

	// Bound is the time within which requests are to be answered; how many take longer is then the only latency that is
	// compared. Default: several bounds, by what stable's latencies are. Where histograms do not count by it, exponential
	// native ones, it is the default too.
	// +kubebuilder:validation:Enum="10ms";"20ms";"50ms";"100ms";"200ms";"300ms";"500ms";"1s";"2s";"5s"
	// +optional
	Bound *metav1.Duration `json:"bound,omitempty"`

	// Objective is how many percent of all requests are to be answered within the bound, as in "95". It sets by how many
	// more the candidate's may be slower than stable's, on top of a ratio, before that speaks against it: a tenth of what
	// the objective leaves. Default: 0.2 percentage points, as with "98".
	// +kubebuilder:validation:Pattern=`^[0-9]{1,2}(\.[0-9]{1,6})?$`
	// +kubebuilder:validation:MaxLength=9
	// +kubebuilder:validation:XValidation:rule="double(self) > 0.0",message="an objective must be above 0 and below 100, in percent"
	// +optional
	Objective *string `json:"objective,omitempty"`
}

// PolicyStatus is what Headgate says about a policy.
type PolicyStatus struct {
	// Conditions: Accepted (False with a reason when the policy can't be used).
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration is the generation the conditions are about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// RolloutPolicy makes ordinary updates of a namespace's Deployments into judged rollouts.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=rp
// +kubebuilder:printcolumn:name="Strategy",type=string,JSONPath=`.spec.strategy`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspend`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RolloutPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec RolloutPolicySpec `json:"spec,omitempty"`
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// RolloutPolicyList is a list of RolloutPolicy.
//
// +kubebuilder:object:root=true
type RolloutPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RolloutPolicy `json:"items"`
}

// ClusterRolloutPolicy is a RolloutPolicy for all enabled namespaces; the namespaced one wins.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=crp
// +kubebuilder:printcolumn:name="Strategy",type=string,JSONPath=`.spec.strategy`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspend`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterRolloutPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec RolloutPolicySpec `json:"spec,omitempty"`
	// +optional
	Status PolicyStatus `json:"status,omitempty"`
}

// ClusterRolloutPolicyList is a list of ClusterRolloutPolicy.
//
// +kubebuilder:object:root=true
type ClusterRolloutPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterRolloutPolicy `json:"items"`
}
