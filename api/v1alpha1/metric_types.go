// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Metric is one of the user's own, or one that a template describes.
//
// +kubebuilder:validation:XValidation:rule="has(self.template) || [has(self.range), has(self.comparedToStable), has(self.rate)].filter(k, k).size() == 1",message="a metric needs exactly one of range, comparedToStable and rate, or a template"
// +kubebuilder:validation:XValidation:rule="has(self.template) || has(self.rate) != has(self.query)",message="a metric needs a query, and a rate a numerator and a denominator instead"
// +kubebuilder:validation:XValidation:rule="!has(self.template) || !has(self.query) && !has(self.rate)",message="what is asked comes from the template: leave out query and rate"
type Metric struct {
	// Name identifies the metric in verdicts and events.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	MetricSpec `json:",inline"`

	// Template is where the rest comes from. What is said here besides goes before what the template says.
	// +optional
	Template *TemplateRef `json:"template,omitempty"`
}

// MetricSpec says what is asked, and how the answer is judged: by exactly one of Range, ComparedToStable and Rate.
type MetricSpec struct {
	// Query must give one number. Variables: {{.Namespace}} {{.Workload}} {{.Revision}} {{.StableRevision}}.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Query string `json:"query,omitempty"`

	// Range is what the value must stay in.
	// +optional
	Range *Range `json:"range,omitempty"`

	// ComparedToStable bounds the value by stable's at the same moment: the query is asked twice, with the candidate's
	// revision and with stable's as {{.Revision}}.
	// +optional
	ComparedToStable *Comparison `json:"comparedToStable,omitempty"`

	// Rate compares counters like requests and errors are compared, by the same sequential method.
	// +optional
	Rate *MetricRate `json:"rate,omitempty"`

	// DryRun shows what the metric says in the Rollout, and lets it decide nothing. Unset is false, or what the template says.
	// +optional
	DryRun *bool `json:"dryRun,omitempty"`

	// Interval is how often it is asked, from 5s, the default, to 4m.
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=18
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('5s') && duration(self) <= duration('4m')",message="an interval must be from 5s to 4m"
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`

	// WarmUp is for how long after the candidate first has a weight the metric's values are ignored; no step passes before.
	// Default 0s.
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=18
	// +optional
	WarmUp *metav1.Duration `json:"warmUp,omitempty"`

	// Weight is that of its vote, in percent; default 100. Metrics that have 100 together fail the candidate, or keep
	// a step from passing. For a rate it is the part of the evidence, where errors and latencies have 100 together.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	Weight *int32 `json:"weight,omitempty"`
}

// Comparison bounds the candidate's value by stable's, inclusive.
//
// +kubebuilder:validation:XValidation:rule="has(self.min) || has(self.max)",message="a comparison needs min, max or both"
// +kubebuilder:validation:XValidation:rule="!has(self.min) || !has(self.max) || double(has(self.min.ratio) ? self.min.ratio : '1') < double(has(self.max.ratio) ? self.max.ratio : '1') || double(has(self.min.difference) ? self.min.difference : '0') < double(has(self.max.difference) ? self.max.difference : '0') || double(has(self.min.ratio) ? self.min.ratio : '1') == double(has(self.max.ratio) ? self.max.ratio : '1') && double(has(self.min.difference) ? self.min.difference : '0') == double(has(self.max.difference) ? self.max.difference : '0')",message="min must not be above max, whatever stable's value is: lower min's ratio or difference, or raise max's (default: ratio 1, difference 0)"
type Comparison struct {
	// Min is the least that the candidate's value may be.
	// +optional
	Min *Line `json:"min,omitempty"`
	// Max is the most.
	// +optional
	Max *Line `json:"max,omitempty"`
}

// Line is a bound that moves with stable: ratio times stable's value, plus difference. Decimal numbers as strings,
// because the API has no floats.
//
// +kubebuilder:validation:XValidation:rule="has(self.ratio) || has(self.difference)",message="a bound needs a ratio, a difference or both"
type Line struct {
	// Ratio multiplies stable's value. Default 1. Below zero it is of the value's size: 1.2 allows a fifth of it more.
	// +kubebuilder:validation:Pattern=`^[0-9]{1,15}(\.[0-9]{1,9})?$`
	// +kubebuilder:validation:MaxLength=26
	// +optional
	Ratio *string `json:"ratio,omitempty"`
	// Difference is added. Default 0.
	// +kubebuilder:validation:Pattern=`^-?[0-9]{1,15}(\.[0-9]{1,9})?$`
	// +kubebuilder:validation:MaxLength=26
	// +optional
	Difference *string `json:"difference,omitempty"`
}

// MetricRate is a share that is counted: of so many, so many were events.
//
// +kubebuilder:validation:XValidation:rule="double(has(self.acceptance) ? self.acceptance.ratio : '2') >= double(has(self.harm) ? self.harm.ratio : '1.25') && double(has(self.acceptance) ? self.acceptance.difference : '0.0075') >= double(has(self.harm) ? self.harm.difference : '0.001')",message="a rate's acceptance must not be below its harm, neither in ratio nor in difference: what is no harm could never be accepted (default: harm 1.25 and 0.001, acceptance 2 and 0.0075)"
type MetricRate struct {
	// Numerator selects the counters of events, Denominator those of everything. Raw counters, never rate() or
	// increase(); best by pod, under the label pod: how much pods differ is then taken into account. Each is asked
	// with the candidate's and with stable's revision as {{.Revision}}. What a query selects may have some 200 series.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Numerator string `json:"numerator"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Denominator string `json:"denominator"`
	// Better says whether fewer events are better (Lower) or more (Higher). With Higher the numerator counts successes, and what has
	// none has failed: successes must be counted together with their requests, so that Denominator counts succeeded + failed. Where
	// they come later the metric has no value, and where over a third of stable's requests have no success: a conversion rate is for
	// ComparedToStable with a Min. It is asked for every 5 s, whatever Interval is. Failures with Lower may be counted up to 30 s after
	// their requests.
	// +kubebuilder:validation:Enum=Lower;Higher
	// +kubebuilder:default=Lower
	// +optional
	Better Better `json:"better,omitempty"`
	// Harm is the line below which nothing is rolled back. Default: ratio 1.25, difference 0.001.
	// +optional
	Harm *RateLine `json:"harm,omitempty"`
	// Acceptance is the line that must be ruled out to advance; in neither number below Harm's. Default: ratio 2, difference 0.0075.
	// +optional
	Acceptance *RateLine `json:"acceptance,omitempty"`
}

// Better is the direction in which a rate is better.
type Better string

// The values of Better.
const (
	BetterLower  Better = "Lower"
	BetterHigher Better = "Higher"
)

// RateLine is a rate that moves with stable's: ratio times stable's, plus difference (0.001 is 0.1 percentage points).
//
// +kubebuilder:validation:XValidation:rule="double(self.ratio) >= 1.0 && double(self.ratio) <= 1000.0",message="a rate's ratio must be from 1 to 1000"
// +kubebuilder:validation:XValidation:rule="double(self.difference) > 0.0 && double(self.difference) <= 1.0",message="a rate's difference must be above 0, and 1 at most"
type RateLine struct {
	// Ratio multiplies stable's rate, from 1 to 1000.
	// +kubebuilder:validation:Pattern=`^[0-9]{1,15}(\.[0-9]{1,9})?$`
	// +kubebuilder:validation:MaxLength=26
	Ratio string `json:"ratio"`
	// Difference is added, above 0 to 1.
	// +kubebuilder:validation:Pattern=`^[0-9]{1,15}(\.[0-9]{1,9})?$`
	// +kubebuilder:validation:MaxLength=26
	Difference string `json:"difference"`
}

// Range bounds a metric's value, inclusive. Decimal numbers as strings, because the API has no floats.
// +kubebuilder:validation:XValidation:rule="has(self.min) || has(self.max)",message="a range needs min, max or both"
// +kubebuilder:validation:XValidation:rule="!has(self.min) || !has(self.max) || double(self.min) <= double(self.max)",message="min must not be greater than max"
type Range struct {
	// +kubebuilder:validation:Pattern=`^-?[0-9]{1,15}(\.[0-9]{1,9})?$`
	// +kubebuilder:validation:MaxLength=26
	// +optional
	Min *string `json:"min,omitempty"`
	// +kubebuilder:validation:Pattern=`^-?[0-9]{1,15}(\.[0-9]{1,9})?$`
	// +kubebuilder:validation:MaxLength=26
	// +optional
	Max *string `json:"max,omitempty"`
}

// TemplateRef names a template and gives it arguments.
type TemplateRef struct {
	// Kind is MetricTemplate, of the policy's namespace, or ClusterMetricTemplate. A ClusterRolloutPolicy can use the
	// latter only.
	// +kubebuilder:validation:Enum=MetricTemplate;ClusterMetricTemplate
	// +kubebuilder:default=MetricTemplate
	// +optional
	Kind TemplateKind `json:"kind,omitempty"`
	// Name is the template's.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Arguments are the values of the template's.
	// +kubebuilder:validation:MaxItems=10
	// +listType=map
	// +listMapKey=name
	// +optional
	Arguments []Argument `json:"arguments,omitempty"`
}

// TemplateKind is a kind of template.
type TemplateKind string

// The kinds of templates.
const (
	KindMetricTemplate        TemplateKind = "MetricTemplate"
	KindClusterMetricTemplate TemplateKind = "ClusterMetricTemplate"
)

// Argument is the value of a template's argument.
type Argument struct {
	// Name is the argument's.
	// +kubebuilder:validation:Pattern=`^[a-z][a-zA-Z0-9]{0,30}$`
	// +kubebuilder:validation:MaxLength=31
	Name string `json:"name"`
	// Value is put in place of {{.Args.name}} as it is. It can't end a string or a selector of the query.
	// +kubebuilder:validation:Pattern=`^[^"'{}\\\x60\x00-\x1f]*$`
	// +kubebuilder:validation:MaxLength=256
	Value string `json:"value"`
}

// Parameter is an argument that a template takes.
type Parameter struct {
	// Name is put into queries as {{.Args.name}}.
	// +kubebuilder:validation:Pattern=`^[a-z][a-zA-Z0-9]{0,30}$`
	// +kubebuilder:validation:MaxLength=31
	Name string `json:"name"`
	// Default is its value where a policy gives none. Without it policies must.
	// +kubebuilder:validation:Pattern=`^[^"'{}\\\x60\x00-\x1f]*$`
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Default *string `json:"default,omitempty"`
}

// MetricTemplateSpec is a metric without a name, with arguments.
//
// +kubebuilder:validation:XValidation:rule="[has(self.range), has(self.comparedToStable), has(self.rate)].filter(k, k).size() == 1",message="a template needs exactly one of range, comparedToStable and rate"
// +kubebuilder:validation:XValidation:rule="has(self.rate) != has(self.query)",message="a template needs a query, and a rate a numerator and a denominator instead"
type MetricTemplateSpec struct {
	// Arguments are what policies may or must say; queries name them as {{.Args.name}}.
	// +kubebuilder:validation:MaxItems=10
	// +listType=map
	// +listMapKey=name
	// +optional
	Arguments []Parameter `json:"arguments,omitempty"`

	MetricSpec `json:",inline"`
}

// MetricTemplate is a metric that the policies of its namespace can use by name. What is wrong with it is said in
// their conditions; a change applies from the next rollout.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=mt
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type MetricTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec MetricTemplateSpec `json:"spec"`
}

// MetricTemplateList is a list of MetricTemplate.
//
// +kubebuilder:object:root=true
type MetricTemplateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MetricTemplate `json:"items"`
}

// ClusterMetricTemplate is a metric that all policies can use by name.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=cmt
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterMetricTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec MetricTemplateSpec `json:"spec"`
}

// ClusterMetricTemplateList is a list of ClusterMetricTemplate.
//
// +kubebuilder:object:root=true
type ClusterMetricTemplateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterMetricTemplate `json:"items"`
}
