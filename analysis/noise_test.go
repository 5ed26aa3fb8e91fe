// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// pods makes a sample from requests and events, pod after pod.
func podsOf(counts ...float64) (s sample) {
	for i := 0; i+1 < len(counts); i += 2 {
		s[i/2] = PodCount{counts[i], counts[i+1]}
	}
	return s
}

func TestDispersion(t *testing.T) {
	tests := map[string]struct {
		pods sample
		low  float64
		high float64
	}{
		"nothing counted is no noise":               {podsOf(), 1, 1},
		"no events are no noise":                    {podsOf(100, 0, 100, 0), 1, 1},
		"a single pod has nobody to compare with":   {podsOf(100, 50), 1, 1},
		"equal pods are quieter than chance":        {podsOf(1000, 10, 1000, 10, 1000, 10), 1, 1},
		"one pod has all events":                    {podsOf(1000, 30, 1000, 0, 1000, 0), 25, 35},
		"twice the requests make twice the events":  {podsOf(2000, 20, 1000, 10), 1, 1},
		"more requests do not excuse other rates":   {podsOf(2000, 80, 1000, 0), 30, 60},
		"everything fails everywhere is no outlier": {podsOf(1000, 1000, 1000, 1000), 1, 1},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if phi := ratio(dispersion(&tc.pods)); phi < tc.low || phi > tc.high {
				t.Errorf("phi %v, want %v to %v", phi, tc.low, tc.high)
			}
		})
	}
}

func TestOldNoiseIsForgotten(t *testing.T) {
	var n Noise
	loud, calm := podsOf(1000, 100, 1000, 0), podsOf(1000, 50, 1000, 50)
	for range 12 {
		n.follow(&loud, 5*time.Second)
	}
	if phi := n.phi(2); phi < 10 {
		t.Fatalf("phi %v right after a noisy minute", phi)
	}
	for range 7 * 12 {
		n.follow(&calm, 5*time.Second)
	}
	if phi := n.phi(2); phi != 1 {
		t.Errorf("phi %v seven minutes later", phi)
	}
}

func TestALastingDifferenceIsToldFromOneThatComesAndGoes(t *testing.T) {
	var lastingly, inTurn []sample
	for i := range 30 {
		lastingly = append(lastingly, podsOf(1000, 20, 1000, 10, 1000, 10))
		s := podsOf(1000, 10, 1000, 10, 1000, 10)
		s[i%3][1] = 20
		inTurn = append(inTurn, s)
	}
	a, b := baseline(lastingly, 3, defaultHarm, 3), baseline(inTurn, 3, defaultHarm, 3)
	if a.Sigma < 0.2 || b.Sigma > 0.05 {
		t.Errorf("sigma %v where one pod always has twice as many, %v where each has in turn", a.Sigma, b.Sigma)
	}
}

func TestOutliersAreExpectedAsOftenAsTheHistoryHadThem(t *testing.T) {
	var blocks []sample
	for i := range 30 {
		s := podsOf(1000, 2, 1000, 2, 1000, 2, 1000, 2)
		if i%3 == 0 {
			s[i/3%4][1] = 300
		}
		blocks = append(blocks, s)
	}
	got := calibrate(blocks, 4, 1, defaultHarm)
	if want := 10.5 / 111; math.Abs(got[0]-want) > 0.02 {
		t.Errorf("expected in a share of %v of the minutes, want about %v", got[0], want)
	}
	if none := calibrate(nil, 4, 1, defaultHarm); none[0] != 0.5 {
		t.Errorf("without a history: %v, want 0.5", none[0])
	}
}

func TestPodsKeepTheirSlots(t *testing.T) {
	var st State
	look := func(i int, names ...string) {
		l := lookAt(i, 0, Counts{}, Counts{})
		l.Stable = map[string]Counts{}
		for k, name := range names {
			l.Stable[name] = Counts{Requests: uint64(100 - k)}
		}
		st, _ = Judge(Settings{}, st, l)
	}
	var crowd []string
	for k := range 20 {
		crowd = append(crowd, fmt.Sprintf("pod-%02d", k))
	}
	look(1, crowd...)
	first := st.Pods
	if st.Pods.busy() != maxPods || first[0].Name != "pod-00" {
		t.Fatalf("%d slots in use, the first by %q", st.Pods.busy(), first[0].Name)
	}
	for i := range 14 { // pod-00 is gone for more than a minute
		look(2+i, crowd[1:]...)
	}
	for k := range first {
		if k > 0 && st.Pods[k].Name != first[k].Name {
			t.Errorf("slot %d went from %q to %q", k, first[k].Name, st.Pods[k].Name)
		}
	}
	if st.Pods[0].Name == "pod-00" || st.Pods[0].Name == "" {
		t.Errorf("the slot of a pod that is gone is held by %q", st.Pods[0].Name)
	}
}
