// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import "fmt"

// SkipReason is why a pod gets no sidecar. The set is closed: it labels a metric.
type SkipReason string

// The reasons. Each names what in the pod or namespace would have to change.
const (
	// SkipOptedOut: the pod carries headgate.dev/inject: "false".
	SkipOptedOut SkipReason = "OptedOut"
	// SkipHostNetwork: the pod lives in the node's network, where nothing may be redirected.
	SkipHostNetwork SkipReason = "HostNetwork"
	// SkipWindows: there is no nftables on Windows.
	SkipWindows SkipReason = "Windows"
	// SkipDNS: the pod asks the node's DNS, which knows no Service, and the sidecar finds the control plane by its name.
	SkipDNS SkipReason = "DNS"
	// SkipOtherMesh: another mesh's proxy already captures the pod's traffic.
	SkipOtherMesh SkipReason = "OtherMesh"
	// SkipNoPorts: no container declares a TCP port, so there is nothing to capture.
	SkipNoPorts SkipReason = "NoPorts"
	// SkipTooManyPorts: more probed ports than there are aliases.
	SkipTooManyPorts SkipReason = "TooManyPorts"
	// SkipPortTaken: the app declares a port that the data plane needs for itself.
	SkipPortTaken SkipReason = "PortTaken"
	// SkipNameTaken: the pod has a container or volume of its own with one of our names.
	SkipNameTaken SkipReason = "NameTaken"
	// SkipPodSecurity: the namespace's Pod Security level would refuse the pod with the sidecar.
	SkipPodSecurity SkipReason = "PodSecurity"
	// SkipLimitRange: no resources for the sidecar satisfy the namespace's LimitRange.
	SkipLimitRange SkipReason = "LimitRange"
	// SkipTokenMode: a volume's tokens would become unreadable for the app.
	SkipTokenMode SkipReason = "TokenMode"
	// SkipTooLarge: the pod's annotations would exceed what the API accepts.
	SkipTooLarge SkipReason = "TooLarge"
)

// Skip says that, and why, a pod got no sidecar. The zero value means that it got one. The same value
// feeds the log, the metric, the pod's annotation and the event.
type Skip struct {
	Reason SkipReason
	// Message is one sentence for the user: what stands in the way, and what would change it.
	Message string
}

// Skipped tells whether the pod got no sidecar.
func (s Skip) Skipped() bool { return s.Reason != "" }

// String is the value of the annotation headgate.dev/injection-skipped; empty when nothing was skipped.
func (s Skip) String() string {
	if !s.Skipped() {
		return ""
	}
	return fmt.Sprintf("%s: %s", s.Reason, s.Message)
}

func skipf(reason SkipReason, format string, args ...any) Skip {
	return Skip{Reason: reason, Message: fmt.Sprintf(format, args...)}
}
