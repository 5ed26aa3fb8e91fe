// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/replay"
)

func newReplay() *cobra.Command {
	var o replay.Options
	policy := ""
	cmd := &cobra.Command{
		Use:   "replay FILE|-",
		Short: "Judge recorded looks again",
		Long: `Runs the judge over looks that were recorded, one JSON object a line, and answers
each with one JSON line:

  {"look":1,"time":5,"step":0,"weight":10,"verdict":"Undecided","evidence":0.9,"cause":""}

verdict is Undecided, Pass, Fail, Hold or Inconclusive. evidence is the e-value
against the candidate: expected to stay below 1 without harm, Fail at 100. cause
is a word for machines (ErrorRate, Latency/0.25, Blind, ...).

A look has the counts of the time since the look before, by pod; times in seconds:

  {"time":5,"weight":10,"step":0,
   "candidate":{"pod-a":{"requests":100,"errors":1,"slower":{"0.1":9,"0.5":0}}},
   "stable":{"pod-b":{"requests":900,"errors":2,"slower":{"0.1":80,"0.5":1}}}}

(in one line; errors may be left out where there are none). "slower" has how many
of the requests took longer than so many seconds, or of "served" where a pod
answers others than it counts; without it latency is not judged. "candidatePods":2
says how many of the candidate's pods get requests, where those of "candidate" are
not its own, as in what export writes. A look without data is
{"time":10,"weight":10,"step":0,"missing":true}; the next may span the gap. Lines
before the first with a weight above 0 are history: they say how much pods differ.
A step begins anew when "step" or "weight" changes, and its time too.

What follows may be left out; export writes it, so that the verdicts are those that
were given at the time. "paused":true: the rollout is paused or waits for approval,
and the time is none of the step's. "since": when the step's weight came into force,
in seconds like "time"; the step begins anew when it changes. "waiting":true: the next
step, or this one again, has begun, and its weight is not in force yet. "judged":
for how many seconds the steps before were judged. "rollout", in the first look:
{"stable":"5c4b","candidate":"7d9f","replicas":40,"autoscaled":true,"policy":{...},
"metrics":0}: the revisions, the number of pods, whether an autoscaler has them (the
steps that few pods can't carry are left out then), the spec of the policy and how
many metrics of its own it has.

What is odd in a look (a field that is not known, more errors than requests, a time
that does not rise) is said once, on standard error.

With - looks are read from standard input, and each is answered at once, so a
simulator can set step and weight by the verdicts. Without --policy the one that
"rollout" names counts; without either a rollout may take an hour, five minutes a
step. A policy that the API server would refuse, or the controller not accept, is an
error: a line for each mistake. Users' metrics are not part of looks.`,
		Example: `  headgate export web -n shop | headgate replay - --explain
  headgate replay incident.jsonl --explain
  headgate replay incident.jsonl --policy policy.yaml | jq -c 'select(.verdict != "Undecided")'
  simulator | headgate replay -`,
		Args: one("a file with looks, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if policy != "" {
				text, err := os.ReadFile(policy)
				if err != nil {
					return fmt.Errorf("reading the policy: %w", err)
				}
				if o.Policy, err = replay.Policy(text); err != nil {
					return err
				}
			}
			o.Warnings = cmd.ErrOrStderr()
			in := cmd.InOrStdin()
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("reading looks: %w", err)
				}
				defer file.Close()
				in = file
			}
			return replay.Run(in, cmd.OutOrStdout(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Explain, "explain", false, "answer with sentences, and draw the evidence at the end")
	f.StringVar(&policy, "policy", "", "file with a RolloutPolicy to judge by")
	return cmd
}
