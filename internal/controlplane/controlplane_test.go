// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/webhook"
)

func TestInjectionFollowsTheOptions(t *testing.T) {
	o := Options{ProxyImage: "proxy:v1", ProxyPullPolicy: "Always", XDSService: "headgate.system.svc", XDSPort: 15610}
	want := webhook.InjectConfig{Image: "proxy:v1", PullPolicy: "Always", XDSName: "headgate.system.svc", XDSAddress: "headgate.system.svc:15610"}
	for _, level := range []string{"privileged", "baseline", "restricted"} {
		o.PodSecurityDefault, want.PodSecurityDefault = level, level
		got, err := o.injection()
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: error %v; injection (-want +got):\n%s", level, err, d)
		}
	}
	for _, level := range []string{"", "Baseline", "strict"} {
		o.PodSecurityDefault = level
		if _, err := o.injection(); err == nil || !strings.Contains(err.Error(), "privileged, baseline, restricted") {
			t.Errorf("%q: the error is %v, want one that names the levels", level, err)
		}
	}
}
