// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Observation is everything that Decide may know, seen at one moment.
type Observation struct {
	// Now is the only clock there is.
	Now time.Time
	// SeenSince is since when this controller has looked at the workload; zero: always. It has heard of no acknowledgement before.
	SeenSince time.Time
	// PolicyGoneSince is when it was first seen that no policy selects the workload; zero while one does.
	// Zero without a policy: every hold must end now (uninstall).
	PolicyGoneSince time.Time
	// Deployment is the workload itself.
	Deployment Deployment
	// Revisions are all its ReplicaSets, those without pods too.
	Revisions []Revision
	// Sidecars are the injected pods' sidecars, with what each has acknowledged.
	Sidecars []Sidecar
	// Unheard says which replicas of Headgate the leader can't ask what their sidecars acknowledged, and why; empty: none. Those
	// sidecars count as not connected.
	Unheard string
	// Verdict is what the analysis says at this look about the current candidate and step; the zero
	// value is Undecided.
	Verdict v1alpha1.Verdict
	// Wishes are the user's, from the Rollout's spec.
	Wishes v1alpha1.RolloutSpec
	// Autoscaled says that a HorizontalPodAutoscaler targets the workload.
	Autoscaled bool
	// NoSplit says why requests can't be split right now, or why there can be no hold; empty when they can.
	NoSplit string
	// StableDownSince is when stable was first seen without any available pod on ready nodes; zero
	// while it has one.
	StableDownSince time.Time
	// StableLeftOut says, as a sentence, which Service has led to stable's pods and leads to the candidate's alone now, and
	// StableLeftOutSince since when that was seen; both are empty while there is none.
	StableLeftOut      string
	StableLeftOutSince time.Time
}

// Deployment is what matters of the workload's Deployment.
type Deployment struct {
	UID types.UID
	// Generation counts the changes of the spec.
	Generation int64
	// Replicas is N.
	Replicas int32
	// Paused is the user's spec.paused.
	Paused bool
	// Current says that the Deployment controller has seen the latest generation.
	Current bool
	// Complete says that the native controller is done with the current template: everything
	// updated, available and nothing old left.
	Complete bool
	// Template is the digest of the current template.
	Template string
	// Hold is the hold in force (the annotation); nil when there is none.
	Hold *v1alpha1.Hold
	// User are the three fields as they stand; they are the user's only where there is no hold.
	User v1alpha1.UserFields
	// Gate is the webhook's decision for the current template; empty when there is none for it.
	Gate v1alpha1.Gate
	// Bypass is the digest of the bypass annotation's value; empty without one.
	Bypass string
	// FailureShown is the message of the failure condition that Headgate wrote; empty when the status shows none.
	// It outlives a record that is deleted by hand.
	FailureShown string
}

// Revision is one ReplicaSet with its pods.
type Revision struct {
	// Hash is the pod-template-hash; Template the digest of the pod template without that label.
	Hash, Template string
	// Replicas is the size the ReplicaSet is told to have.
	Replicas int32
	// Desired is the Deployment's N as the Deployment controller last noted it on this ReplicaSet; -1 without a note.
	Desired int32
	// Pods are those that the ReplicaSet owns, terminating ones included.
	Pods []Pod
	// Services names the Services, and their ports, that lead to its pods now, as RolloutStatus.StableServices does.
	Services []string
	// CreateFailure is why the ReplicaSet can't create pods (quota, admission); empty when it can.
	CreateFailure string
	// CreateFailureSince is since when, but not longer than the controller has been there to see it.
	CreateFailureSince time.Time
}

// Pod is what matters of one pod.
type Pod struct {
	Name string
	// CreatedAt is its creation time.
	CreatedAt time.Time
	// Terminating: it has a deletion timestamp. Such a pod never counts, for nor against.
	Terminating bool
	// NodeReady is false when its node is not ready, or gone. Then the pod never counts against anybody.
	NodeReady bool
	// Gated: it has Headgate's readiness gate. GateOpen: the gate's condition is True.
	Gated, GateOpen bool
	// Ready: the pod's Ready condition.
	Ready bool
	// ReadyButGate: containers ready and every other gate True, not terminating, node ready.
	ReadyButGate bool
	// LostReadySince is since when a pod that was ready but for the gate is so no longer; zero while it
	// is, or never was.
	LostReadySince time.Time
	// Restarts is the largest restart count of its app containers.
	Restarts int32
	// NoSidecar is why the Pod webhook gave it no sidecar, in its words; empty where it did, or where nothing is noted.
	NoSidecar string
	// Problem is what keeps it from starting, if anything does; see PodProblem.
	Problem PodProblem
	// Message is the kubelet's or scheduler's own words about the problem, or what the pod waits for without one.
	Message string
	// ProblemSince is when the problem began, as well as that is known.
	ProblemSince time.Time
}

// PodProblem is what keeps a pod from running. The zero value is none.
type PodProblem string

// Problems.
const (
	ProblemNone          PodProblem = ""
	ProblemImagePull     PodProblem = "ImagePull"     // ErrImagePull, ImagePullBackOff, InvalidImageName
	ProblemCrashLoop     PodProblem = "CrashLoop"     // CrashLoopBackOff
	ProblemOOMKilled     PodProblem = "OOMKilled"     // last termination was by the OOM killer
	ProblemConfiguration PodProblem = "Configuration" // CreateContainerConfigError and the like
	ProblemUnschedulable PodProblem = "Unschedulable" // the scheduler finds no node
)

// Sidecar is one injected pod's sidecar as the xDS servers see it.
type Sidecar struct {
	// Pod is the pod's name, Revision its pod-template-hash.
	Pod, Revision string
	// Connected: some replica of the server has its stream.
	Connected bool
	// Candidate and Weight are what it has acknowledged: the candidate's hash and share. Candidate is
	// empty at rest (everything local), and while another weight than the last acknowledged may be in force.
	Candidate string
	Weight    int32
	// HandsOn: it is the candidate's, and gives what sidecars of stable send it to one of stable's pods, as those of a
	// rejected candidate do. They count the answers as the candidate's.
	HandsOn bool
	// Rejected is Envoy's own words when the sidecar refused its configuration; empty otherwise.
	Rejected string
}

// revision finds a revision by its hash; one without pods and with Desired -1 when absent.
func (o *Observation) revision(r v1alpha1.Revision) Revision {
	for _, rev := range o.Revisions {
		if r.Hash != "" && rev.Hash == r.Hash {
			return rev
		}
	}
	return Revision{Hash: r.Hash, Template: r.Template, Desired: -1}
}

// resolve gives a recorded revision the hash that its template has now; what can't be seen stays as it is.
func (o *Observation) resolve(r v1alpha1.Revision) v1alpha1.Revision {
	exists := slices.ContainsFunc(o.Revisions, func(rev Revision) bool { return rev.Hash == r.Hash })
	if r.Template == "" || (r.Hash != "" && exists) {
		return r
	}
	if now := o.byTemplate(r.Template); now.Hash != "" {
		return now
	}
	return r
}

// byTemplate names the revision with this template digest; its Hash is empty while there is none.
func (o *Observation) byTemplate(template string) v1alpha1.Revision {
	for _, rev := range o.Revisions {
		if rev.Template == template {
			return v1alpha1.Revision{Hash: rev.Hash, Template: template}
		}
	}
	return v1alpha1.Revision{Template: template}
}

// readyButGate counts pods that a sidecar may send requests to.
func (r Revision) readyButGate() int32 {
	return r.count(func(p Pod) bool { return p.ReadyButGate })
}

// ready counts pods that Services see.
func (r Revision) ready() int32 {
	return r.count(func(p Pod) bool { return p.Ready && !p.Terminating })
}

// alive counts pods that are not on their way out.
func (r Revision) alive() int32 {
	return r.count(func(p Pod) bool { return !p.Terminating })
}

func (r Revision) count(f func(Pod) bool) (n int32) {
	for _, p := range r.Pods {
		if f(p) {
			n++
		}
	}
	return n
}
