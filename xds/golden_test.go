// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// asYAML leaves versions out: they follow from the content.
func asYAML(t *testing.T, rs []Resource) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, r := range rs {
		m, err := r.Body.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		y, err := yaml.JSONToYAML(raw)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n")
		out.Write(y)
	}
	return out.Bytes()
}

func TestGolden(t *testing.T) {
	ipv6 := web(100, "10.0.0.1", "fd00::1")
	ipv6.IPv6 = true
	over := web(100, "10.0.0.1")
	over.Split.PeerIsStable, over.Split.Over = true, true
	for name, w := range map[string]Workload{
		"over":          over,
		"at-rest":       atRest(web(0)),
		"weight-25":     web(25, "10.0.0.1", "10.0.0.2"),
		"weight-100-v6": ipv6,
		"http":          {Namespace: "shop", Name: "api", Revision: "a1", Ports: []Port{{Number: 8080, Protocol: HTTP, Peer: 8080}}},
		"only-bytes":    {Namespace: "shop", Name: "db", Revision: "a1", Ports: []Port{{Number: 5432, Protocol: TCP}}},
		"no-ports":      {Namespace: "shop", Name: "job", Revision: "a1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := translated(t, w)
			for _, typ := range Types() {
				golden(t, filepath.Join(name, typ.String()+".yaml"), asYAML(t, r[typ]))
			}
		})
	}
}

func TestGoldenBootstrap(t *testing.T) {
	b, err := Bootstrap(Node{ID: "shop/web-1", Socket: "/run/headgate/xds.sock", Ended: "/dev/shm/headgate-1/ended", IPv6: true})
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b) {
		t.Errorf("bootstrap is no JSON")
	}
	golden(t, "bootstrap.json", b)
	for _, n := range []Node{{ID: "x"}, {Socket: "x"}} {
		if _, err := Bootstrap(n); err == nil {
			t.Errorf("Bootstrap(%+v): no error", n)
		}
	}
}
