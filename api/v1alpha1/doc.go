// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is Headgate's API: the policies that platform teams write, the Rollout record
// that Headgate keeps for each workload, and the names of everything it puts on Kubernetes objects.
//
// Vocabulary. A workload is a Deployment that a policy selects; N is its replicas. A revision is one
// of its ReplicaSets, named by its pod-template-hash. Stable is the revision proven good, candidate
// the one being tried. A gate is the readiness gate on a pod, closed or open; a hold is closed gates
// plus three Deployment fields (maxSurge, maxUnavailable, progressDeadlineSeconds). k is the number
// of candidate pods wanted, weight the share of requests for the candidate in percent. A step is one
// stage of a rollout: a weight, a k, and what must hold before the next.
//
// +kubebuilder:object:generate=true
// +groupName=headgate.dev
package v1alpha1
