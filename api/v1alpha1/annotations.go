// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"encoding/json"
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Names that Headgate puts on, or reads from, Kubernetes objects.
const (
	// EnabledLabel on a namespace, with the value "true", lets Headgate's webhooks see it.
	EnabledLabel = "headgate.dev/enabled"
	// InjectedLabel with the value "true" marks a pod that carries the sidecar. Monitors select by it.
	InjectedLabel = "headgate.dev/injected"

	// GateCondition is the readiness gate, and the pod condition that opens it when True.
	GateCondition corev1.PodConditionType = "headgate.dev/released"

	// GateAnnotation on a Deployment says, together with GateTemplateAnnotation, whether pods made
	// from its template start with a closed gate. The Deployment controller copies both to the
	// ReplicaSet before it creates pods; the Pod webhook obeys what the ReplicaSet says. On a pod, with the
	// value "open", it says that the Pod webhook let a candidate's pod in without a gate.
	GateAnnotation = "headgate.dev/gate"
	// GateTemplateAnnotation is the digest of the template that GateAnnotation is about. A decision
	// about another template than the ReplicaSet's own counts as no decision. On a pod that was let in without
	// a gate it is the pod's pod-template-hash, which no template can say of itself.
	GateTemplateAnnotation = "headgate.dev/gate-template"
	// GateReasonAnnotation on a Deployment says why the update to the template that GateTemplateAnnotation names was not
	// held, in the words of its admission warning, for the Event that the controller reports. At most 512 bytes; absent
	// where the update was held, where a hold ended as the controller said, and where there is no room for it.
	GateReasonAnnotation = "headgate.dev/gate-reason"
	// HoldAnnotation on a Deployment is the hold in force, a Hold as JSON. Only the controller may
	// change it once it is there; only the Deployment webhook renders it into fields.
	HoldAnnotation = "headgate.dev/hold"
	// BypassAnnotation on a Deployment, with a value not used before (a reason), lets one whole
	// update go out ungated.
	BypassAnnotation = "headgate.dev/bypass"
	// PreviewAnnotation on a Service, with the value "true": it leads to the newest version on purpose, and nobody is lost where
	// it leads to a held candidate alone.
	PreviewAnnotation = "headgate.dev/preview"
	// InjectAnnotation on a pod template, with the value "false", keeps the sidecar out.
	InjectAnnotation = "headgate.dev/inject"
	// InjectionAnnotation on an injected pod is what was captured, an Injection as JSON.
	InjectionAnnotation = "headgate.dev/injection"
	// SkipAnnotation on a pod of a managed workload says why it got no sidecar.
	SkipAnnotation = "headgate.dev/injection-skipped"

	// WakeAnnotation is put on a ReplicaSet and taken away again, so that its controller tries to create pods.
	WakeAnnotation = "headgate.dev/wake"
	// ReleaseAnnotation on Headgate's own Deployment, with the value "true", ends every hold: while it
	// is there no policy counts. `headgate release` and the uninstall hook write it.
	ReleaseAnnotation = "headgate.dev/release"

	// TokenAudience is the audience of the pod-bound token that a sidecar presents.
	TokenAudience = "headgate"
)

// Gate is the decision carried by GateAnnotation. Anything else than these two values counts as none.
type Gate string

const (
	// GateClosed makes pods start with a closed gate: running, but not ready.
	GateClosed Gate = "closed"
	// GateOpen makes pods start without a gate.
	GateOpen Gate = "open"
)

// Hold is the value of HoldAnnotation: what the controller wishes, and what the user's own fields
// are while the hold has replaced them.
type Hold struct {
	// K is the number of candidate pods wanted, at least 1. Rendered as maxSurge.
	K int32 `json:"k"`
	// Template is the digest of the held template (the candidate's).
	Template string `json:"template"`
	// User is what the user wants the three fields to be; applied when the hold ends.
	User UserFields `json:"user"`
	// Release ends the hold when set: the webhook renders it in that admission and drops the annotation.
	// In an object that is stored it is a release that waits for the user to resume.
	Release Release `json:"release,omitempty"`
	// UID is the Deployment that the webhook put the hold on. In any other one (an exported manifest, a
	// restored backup) the hold counts for nothing. Set by the webhook.
	UID types.UID `json:"uid,omitempty"`
	// From is the resourceVersion of the object that this hold was last derived from. A webhook that is
	// called again in the same request knows its own work by it. Set by the webhook.
	From string `json:"from,omitempty"`
}

// Release is the way a hold ends.
type Release string

const (
	// ReleaseForward ends the hold with the candidate's template: it goes out by a native rolling update.
	ReleaseForward Release = "Forward"
	// ReleaseBack ends the hold with the stable template (Revert).
	ReleaseBack Release = "Back"
)

// UserFields are the Deployment fields that a hold replaces, as the user wrote them (after defaulting).
type UserFields struct {
	// StrategyType is RollingUpdate or, when the user switched mid-rollout, Recreate.
	StrategyType string `json:"strategyType"`
	// MaxSurge and MaxUnavailable are nil with Recreate.
	MaxSurge       *intstr.IntOrString `json:"maxSurge,omitempty"`
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`
	// ProgressDeadlineSeconds is nil when the user removed it (the API defaults it to 600).
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds,omitempty"`
}

// HeldProgressDeadlineSeconds is the progress deadline of a held Deployment: as good as none. MaxInt32 itself means "none"
// to the Deployment controller, which then deletes the Progressing condition that carries the verdict. Nobody writes this
// value by hand: it also marks fields as a hold's.
const HeldProgressDeadlineSeconds int32 = math.MaxInt32 - 1

// HaveHeldDeadline says whether the progress deadline is a hold's, and so the fields not as the user wrote them.
func (f UserFields) HaveHeldDeadline() bool {
	return f.ProgressDeadlineSeconds != nil && *f.ProgressDeadlineSeconds == HeldProgressDeadlineSeconds
}

// String is the annotation's value: canonical JSON, so that equal holds are equal strings.
func (h Hold) String() string {
	b, err := json.Marshal(h)
	if err != nil { // a Hold has no field that can fail to marshal
		panic(err)
	}
	return string(b)
}

// ParseHold reads the value of HoldAnnotation. An empty value is no hold: nil, nil.
func ParseHold(value string) (*Hold, error) {
	if value == "" {
		return nil, nil
	}
	var h Hold
	if err := json.Unmarshal([]byte(value), &h); err != nil {
		return nil, fmt.Errorf("parsing annotation %s: %w", HoldAnnotation, err)
	}
	if h.K < 1 {
		return nil, fmt.Errorf("parsing annotation %s: k is %d, want at least 1", HoldAnnotation, h.K)
	}
	return &h, nil
}

// Injection is the value of InjectionAnnotation: what the Pod webhook decided for this pod. The xDS
// server and `headgate run` build the same configuration from it.
type Injection struct {
	// Workload is the Deployment's name, Revision the pod-template-hash.
	Workload string `json:"workload"`
	Revision string `json:"revision"`
	// Ports are the captured container ports, ascending, without duplicates.
	Ports []CapturedPort `json:"ports"`
}

// CapturedPort is one declared TCP container port whose inbound traffic passes the sidecar.
type CapturedPort struct {
	// Port is the container port, 1 to 65535.
	Port int32 `json:"port"`
	// Names are those under which Services find it, ascending: one port may be declared several times, each time
	// with another name.
	Names []string `json:"names,omitempty"`
	// Protocol is what the Services said when the pod was created.
	Protocol PortProtocol `json:"protocol"`
	// Alias is the port that nftables redirects straight to Port, for probes and hooks; 0 when none
	// points there.
	Alias int32 `json:"alias,omitempty"`
}

// String is the annotation's value: canonical JSON, so that equal injections are equal strings.
func (i Injection) String() string {
	b, err := json.Marshal(i)
	if err != nil { // an Injection has no field that can fail to marshal
		panic(err)
	}
	return string(b)
}

// ParseInjection reads the value of InjectionAnnotation. Unlike a hold, an empty value is an error:
// it is read only where a sidecar is.
func ParseInjection(value string) (Injection, error) {
	var i Injection
	if err := json.Unmarshal([]byte(value), &i); err != nil {
		return Injection{}, fmt.Errorf("parsing annotation %s: %w", InjectionAnnotation, err)
	}
	if i.Workload == "" || i.Revision == "" {
		return Injection{}, fmt.Errorf("parsing annotation %s: workload or revision is empty", InjectionAnnotation)
	}
	return i, nil
}

// PortProtocol says how a captured port is handled.
type PortProtocol string

const (
	// ProtocolAuto sniffs HTTP/1.x and h2c, and passes anything else through as bytes.
	ProtocolAuto PortProtocol = "auto"
	// ProtocolHTTP is HTTP/1.x or h2c, also on a connection whose client is silent at first; TLS passes through.
	ProtocolHTTP PortProtocol = "http"
	// ProtocolTCP passes bytes through, without sniffing (server-first protocols are not delayed).
	ProtocolTCP PortProtocol = "tcp"
)

// Ports of the data plane, in every injected pod.
const (
	CapturePort    int32 = 15600 // inbound capture (the nftables redirect's target)
	PeerPort       int32 = 15601 // a sidecar of the other revision delivers here
	AdminPort      int32 = 15602 // Envoy admin, loopback only
	StatsPort      int32 = 15603 // readiness and Prometheus stats
	FirstAliasPort int32 = 15620 // first probe alias; the others follow
)

// Names of what the Pod webhook adds.
const (
	PrepareContainer = "headgate-prepare"
	ProxyContainer   = "headgate-proxy"
	TokenVolume      = "headgate-token"
	TokenMountPath   = "/var/run/secrets/headgate.dev"
)
