// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestAdmissionPatches(t *testing.T) {
	for name, tc := range map[string]struct {
		admission admission
		object    string
		want      string
	}{
		"an image of a Deployment": {
			admission{from: "mirror/", to: "real/"},
			`{"spec":{"template":{"spec":{"containers":[{"image":"other/a"},{"image":"mirror/b:1"}]}}}}`,
			`[{"op":"replace","path":"/spec/template/spec/containers/1/image","value":"real/b:1"}]`,
		},
		"an image of a pod": {
			admission{from: "mirror/", to: "real/"}, `{"spec":{"initContainers":[{"image":"mirror/a"}]}}`,
			`[{"op":"replace","path":"/spec/initContainers/0/image","value":"real/a"}]`,
		},
		"an annotation": {
			admission{drop: "headgate.dev/"}, `{"metadata":{"annotations":{"headgate.dev/hold":"x","team":"shop"}}}`,
			`[{"op":"remove","path":"/metadata/annotations/headgate.dev~1hold"}]`,
		},
		"nothing": {admission{}, `{"metadata":{"annotations":{"a":"b"}},"spec":{"containers":[{"image":"a"}]}}`, `[]`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.admission.patch([]byte(tc.object))
			if err != nil || string(got) != tc.want {
				t.Errorf("got %s, %v; want %s", got, err, tc.want)
			}
		})
	}
}
