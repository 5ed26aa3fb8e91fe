// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package rollout decides. It is one pure function, Decide, from what was seen at one moment (an
// Observation) and what was recorded before (the status) to the state that should be (a Decision).
//
// It returns no commands, no errors, and reads no clock: applying a Decision twice is harmless, a
// crash while applying it is repaired by the next pass, and the whole behaviour can be replayed as
// text (testdata/*.txt).
//
//	         hold appears              k pods ready but for the gate,
//	┌──────┐ ──────────────► ┌────────┐ weight 0 acknowledged  ┌─────────────┐ accepted, not the last
//	│ Idle │                 │Starting│ ─────────────────────► │ Stepping(i) │ ──┐ step: i+1
//	└──────┘ ◄─┐             └────────┘                        └─────────────┘ ◄─┘
//	    ▲      │ stable template │ pod failure,                  │ ▲   │   │ accepted, last step
//	    │      │ put back        │ deadline                 pause│ │   │   ▼
//	    │      │ (undo, apply)   │                    approval ▼ │ │   │ ┌───────────┐ complete
//	    │      └─────────────────┼──────────────────────── ┌──────┐ │   │ │ Promoting │ ─────► Idle
//	    │                        ▼                         │Paused│ │   │ └───────────┘
//	    │  Revert         ┌─────────────┐ ◄──── Fail ───── └──────┘ │   │      │ Fail: stable template
//	    ├──────────────── │ RollingBack │ ◄──── Fail ───────────────┘   │      ▼ and fields at once
//	    │                 └─────────────┘ ◄─────────────────────────────┴── RollingBack
//	    │                        │ Quarantine, weight 0 acknowledged
//	    │   new template,        ▼
//	    │   undo, TTL     ┌─────────────┐ retry
//	    └──────────────── │ Quarantined │ ──────► Starting
//	                      └─────────────┘
//
// A third template in any phase starts again at Starting, with that template as the candidate.
// The roll back of a promotion stays RollingBack until the native controller has given stable its pods
// back. decide.go has the rules in their order; ends.go, release.go, steps.go and finish.go what they do;
// ladder.go the steps and k; hold.go the annotation, gates and wishes; repair.go sizes; signals.go pods.
//
// The order that whoever applies a Decision must keep. Up: pods, then ready but for the gate, then
// endpoints, then acknowledged, then weight, then acknowledged; a Decision never asks for a later one
// before the Observation has shown the earlier one. Down: weight 0, acknowledged (or two seconds),
// then gates, then pods. So apply writes the status (from which all weights derive) before it lowers
// anything else, and raises before it lowers.
package rollout
