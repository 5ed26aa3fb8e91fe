// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package harness

import (
	"strings"
	"testing"
)

// The measuring tools, tried on plain Kubernetes: they see nothing where nothing is, and do see a bad
// version. What the other tests conclude rests on this.
func TestMeasuringTools(t *testing.T) {
	cluster, err := Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := cluster.NewCase(t, NotEnabled)
	c.Deploy("replicas=3")
	loads := []*Load{c.StartLoad("service", ToService(AllKinds())), c.StartLoad("pods", ToPods(AllKinds()))}
	c.SetImage("v2")
	c.Do("rollout", "status", "deployment/"+Name, "--timeout=3m")
	c.AwaitComplete()
	c.AwaitQuiet()
	for _, l := range loads {
		r := l.Stop()
		if !r.Final || r.Failed != 0 || r.OK != r.Sent || len(r.Kinds) != len(AllKinds()) {
			t.Errorf("a plain update of a good version: sent %d, ok %d, failed %d %v\n%s", r.Sent, r.OK, r.Failed, r.Classes, strings.Join(r.Samples, "\n"))
		}
		if r.Versions["v1"].OK == 0 || r.Versions["v2"].OK == 0 {
			t.Errorf("answers by version %v, want some of v1 and of v2", r.Versions)
		}
		t.Logf("%d requests, %v, latencies %+v", r.Sent, r.Versions, r.Kinds["http1"].Latency)
	}
	if all := c.Pods.All(); all != 6 {
		t.Errorf("%d pods were created for two versions of 3, want 6", all)
	}

	l := c.StartLoad("again", ToService(AllKinds()))
	c.SetImage("errors")
	c.Do("rollout", "status", "deployment/"+Name, "--timeout=3m")
	c.AwaitComplete()
	config := ToService(AllKinds())
	config.Requests = 300
	c.StartLoad("more", config).Wait()
	r := l.Stop()
	if own := r.Classes["status-500"] + r.Classes["grpc-Internal"]; own == 0 || own != r.Failed {
		t.Errorf("a bad version: failed %d, classes %v, want only those that it fails itself\n%s", r.Failed, r.Classes, strings.Join(r.Samples, "\n"))
	}
}
