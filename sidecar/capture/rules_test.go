// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/api/v1alpha1"
)

func TestRules(t *testing.T) {
	tests := map[string]struct {
		ports []v1alpha1.CapturedPort
		want  []Redirect
	}{
		"peers are redirected even when nothing is captured": {
			want: []Redirect{{15601, 15600}},
		},
		"a captured port goes to the sidecar, its alias past it": {
			ports: []v1alpha1.CapturedPort{{Port: 8080, Alias: 15620}, {Port: 9000}},
			want:  []Redirect{{8080, 15600}, {9000, 15600}, {15601, 15600}, {15620, 8080}},
		},
		"the sidecar's own ports are never captured": {
			ports: []v1alpha1.CapturedPort{{Port: 15600}, {Port: 15603}, {Port: 15699, Alias: 15621}},
			want:  []Redirect{{15601, 15600}},
		},
		"what is no port is left out": {
			ports: []v1alpha1.CapturedPort{{Port: 0}, {Port: -1}, {Port: 65536}, {Port: 80, Alias: 99999}},
			want:  []Redirect{{80, 15600}, {15601, 15600}},
		},
		"a port named twice is redirected once": {
			ports: []v1alpha1.CapturedPort{{Port: 80}, {Port: 80}},
			want:  []Redirect{{80, 15600}, {15601, 15600}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := Rules(v1alpha1.Injection{Ports: tc.ports})
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Rules (-want +got):\n%s", diff)
			}
		})
	}
}
