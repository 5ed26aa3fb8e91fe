// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"flag"
	"os"
	"testing"

	"github.com/headgate/headgate/e2e/harness"
)

// parallel is how many cases run at a time, unless -parallel says so: they wait more than they work.
const parallel = "4"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", parallel); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func TestHeadgate(t *testing.T) {
	cluster, err := harness.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// First, because it begins with an earlier version. All other cases then run on what was upgraded, as most
	// installations are.
	if !t.Run("Upgrade", func(t *testing.T) { testUpgrade(t, cluster) }) {
		if err := cluster.Install(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := cluster.EnsureInstalled(t.Context()); err != nil {
		t.Fatal(err)
	}
	together := map[string]func(*testing.T, *harness.Cluster){
		"GoodUpdate":   testGoodUpdate,
		"Evidence":     testEvidence,
		"BadVersion":   testBadVersion,
		"Room":         testRoom,
		"Untouched":    testUntouched,
		"BadInput":     testBadInput,
		"ChangeOfMind": testChangeOfMind,
		"OtherWebhook": testOtherWebhook,
		"Unsplit":      testUnsplit,
		"Autoscaler":   testAutoscaler,
		"OwnFaults":    testOwnFaults,
		"Unreached":    testUnreached,
		"Metrics":      testMetrics,
	}
	t.Run("Together", func(t *testing.T) {
		for name, test := range together {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, cluster)
			})
		}
	})
	// Shares are measured when nothing else runs: a pod that a starved machine can't reach in time is left
	// out, as designed, and its share stays with the other revision.
	t.Run("Weight", func(t *testing.T) { testWeight(t, cluster) })
	// Every case needs what these take away.
	t.Run("Away", func(t *testing.T) { testAway(t, cluster) })
	t.Run("DeadWebhook", func(t *testing.T) { testDeadWebhook(t, cluster) })
	t.Run("BreakGlass", func(t *testing.T) { testBreakGlass(t, cluster) })
	t.Run("HangingPodWebhook", func(t *testing.T) { testHangingPodWebhook(t, cluster) })
	// All pods of the cluster share the node that is cordoned.
	t.Run("Drain", func(t *testing.T) { testDrain(t, cluster) })
	t.Run("Faults", func(t *testing.T) { testFaults(t, cluster) })
	t.Run("Uninstall", func(t *testing.T) {
		if os.Getenv("HEADGATE_E2E_UNINSTALL") != "true" {
			t.Skip("this removes Headgate from the cluster: set HEADGATE_E2E_UNINSTALL=true where that is fine")
		}
		testUninstall(t, cluster)
	})
}
