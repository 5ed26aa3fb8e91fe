// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package webhook decides, in the admission of Deployments, pods and scales, what Headgate makes of an
// ordinary update. It is a handful of pure functions with a thin edge around them.
//
//	kubectl apply ──► API server ──► /mutate-deployments ── holdInput ──► DecideHold ──► patch
//	                                                                          │
//	       annotation hold: k, the user's fields ◄────────────────────────────┤
//	       maxSurge k, maxUnavailable 0, long deadline ◄──────────────────────┤
//	       annotation gate: closed|open + digest of the template ◄────────────┘
//	                  │ the Deployment controller copies annotations to the ReplicaSet
//	                  ▼
//	ReplicaSet ──► pod ──► /mutate-pods ── DecideGate ──► CloseGate ── Inject ──► patch
//
//	HPA ──► /mutate-scale ── DecideScale ──► patch
//
// The words:
//
//   - held: the stored object carries a hold that the webhook put on this very Deployment (its uid).
//     A hold from elsewhere, in an exported manifest or a restored backup, is foreign and is released.
//   - wishes: what the user wants the three fields and strategy.type to be. While held they live in the
//     hold. A field that a client sends as it was rendered is untouched; anything else is a new wish.
//   - rendered: the fields are the hold's, known by the progress deadline that nobody writes by hand.
//   - row: one rule of the table in the design, "What the webhooks decide". rows.go has them in order;
//     the first that matches wins.
//
// Three properties hold for all of it, and are tested on thousands of random situations: the input is
// never modified; deciding about one's own work decides the same (the API server calls again when another
// webhook changed the object); and nothing is changed but Headgate's annotations, the fields and, to
// release back, the template.
//
// Where to look: rows.go says when, hold.go and render.go what is written, request.go and fields.go whose
// each value is; stable.go, policy.go and split.go answer one question each; pod.go and inject.go are
// about pods, scale.go about autoscalers; gather.go and the handlers are the edge.
package webhook
