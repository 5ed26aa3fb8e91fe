// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package faults breaks parts of Headgate, or what it needs, and mends them. Whatever a case breaks is mended when
// it ends.
//
//	Kill, Freeze      processes of pods, by a privileged pod on their node
//	Evict, Disconnect single pods, and sidecars from the control plane
//	Shut              sidecars from the pods of the other revision
//	NewPrometheus     a Prometheus that is slow, answers nonsense or not at all, for the policies that name it
//	RotateCertificate the certificate that webhooks and xDS share; nobody should notice
//
// These are noticed by the whole cluster, so that a case which uses them runs alone:
//
//	Leader, Away      the control plane, and the Prometheus that the chart brings
//	Hurry             ends the kubelet's back-off when the control plane could not run for a while
//	NewAPIServer      delays and refuses what the control plane asks of the API server
//	ReplaceCA         the CA that sidecars and the API server trust
//	ExpireCertificate a certificate that nobody accepts, until there is another one
//	Refuse, Hang      a webhook that refuses connections, or never answers
package faults
