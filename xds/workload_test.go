// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strings"
	"testing"
)

func TestWorkloadsThatCantBeTranslated(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*Workload)
		wantErr string // part of the message; empty: valid
	}{
		"the fixture is valid":                       {func(*Workload) {}, ""},
		"no ports are valid":                         {func(w *Workload) { w.Ports = nil }, ""},
		"IPv6 endpoints are valid":                   {func(w *Workload) { w.Split.Endpoints = []string{"fd00::1"} }, ""},
		"an empty name":                              {func(w *Workload) { w.Name = "" }, "name"},
		"a name that would end a statistics name":    {func(w *Workload) { w.Name = "web|x" }, "name"},
		"a revision with a newline":                  {func(w *Workload) { w.Revision = "a\n" }, "revision"},
		"a peer revision with a dot":                 {func(w *Workload) { w.Split.Peer = "a.b" }, "dot"},
		"a revision that is its own peer":            {func(w *Workload) { w.Split.Peer = w.Revision }, "own peer"},
		"a weight over 100":                          {func(w *Workload) { w.Split.PeerWeight = 101 }, "weight"},
		"port 0":                                     {func(w *Workload) { w.Ports[0].Number = 0 }, "range"},
		"a port over 65535":                          {func(w *Workload) { w.Ports[3].Number = 65536 }, "range"},
		"a peer port over 65535":                     {func(w *Workload) { w.Ports[0].Peer = 65536 }, "range"},
		"ports that do not ascend":                   {func(w *Workload) { w.Ports[1].Number = 8080 }, "ascending"},
		"a port of the sidecar":                      {func(w *Workload) { w.Ports[3].Number = PeerPort }, "sidecar"},
		"an unknown protocol":                        {func(w *Workload) { w.Ports[0].Protocol = 7 }, "protocol"},
		"an endpoint that is a name":                 {func(w *Workload) { w.Split.Endpoints = []string{"web"} }, "endpoint"},
		"an endpoint inside the own pod":             {func(w *Workload) { w.Split.Endpoints = []string{"127.0.0.1"} }, "endpoint"},
		"an endpoint twice":                          {func(w *Workload) { w.Split.Endpoints = []string{"10.0.0.1", "10.0.0.1"} }, "sorted"},
		"endpoints that would differ by order alone": {func(w *Workload) { w.Split.Endpoints = []string{"10.0.0.2", "10.0.0.1"} }, "sorted"},
	} {
		t.Run(name, func(t *testing.T) {
			w := web(10, "10.0.0.1")
			tc.change(&w)
			_, err := Translate(w)
			switch {
			case tc.wantErr == "" && err != nil:
				t.Errorf("Translate: %v", err)
			case tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr)):
				t.Errorf("Translate: error %v, want one about %q", err, tc.wantErr)
			}
		})
	}
}
