// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

// ChartDir is the chart, seen from this package.
const ChartDir = "../headgate"

// KubeVersion is what the chart is rendered for: the oldest version that it supports.
const KubeVersion = "v1.30.0"

// Rendering is what to render.
type Rendering struct {
	// Values are the user's, as in a values file.
	Values map[string]any
	// APIVersions are those that the cluster has besides Kubernetes' own, as group/version/Kind.
	APIVersions []string
	// Upgrade renders for helm upgrade instead of helm install.
	Upgrade bool
}

// Rendered is what the chart makes of a Rendering.
type Rendered struct {
	// Objects are those of the release and the hooks, in Helm's order.
	Objects []*unstructured.Unstructured
	// Manifest is the text they were read from, comments included.
	Manifest string
	// Notes is what Helm prints at the end.
	Notes string
}

// Render does what helm template does. The error is the one that a user would see.
func Render(r Rendering) (*Rendered, error) {
	chart, err := loader.LoadDir(ChartDir)
	if err != nil {
		return nil, fmt.Errorf("loading the chart: %w", err)
	}
	version, err := common.ParseKubeVersion(KubeVersion)
	if err != nil {
		return nil, fmt.Errorf("parsing the version of Kubernetes: %w", err)
	}
	install := action.NewInstall(action.NewConfiguration())
	install.DryRunStrategy = action.DryRunClient
	install.Replace = true
	install.ReleaseName = "headgate"
	install.Namespace = "headgate-system"
	install.KubeVersion = version
	install.APIVersions = r.APIVersions
	install.IsUpgrade = r.Upgrade
	releaser, err := install.RunWithContext(context.Background(), chart, r.Values)
	if err != nil {
		return nil, err
	}
	release, ok := releaser.(*releasev1.Release)
	if !ok {
		return nil, fmt.Errorf("rendering the chart: Helm returned a %T", releaser)
	}
	out := &Rendered{Notes: release.Info.Notes, Manifest: release.Manifest}
	for _, h := range release.Hooks {
		out.Manifest += "---\n" + h.Manifest + "\n"
	}
	out.Objects, err = decode([]byte(out.Manifest))
	if err != nil {
		return nil, err
	}
	return out, nil
}

func decode(manifest []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	d := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		u := &unstructured.Unstructured{}
		err := d.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("decoding what was rendered: %w", err)
		}
		if len(u.Object) > 0 {
			objects = append(objects, u)
		}
	}
}

// Key names an object: kind and name, which is unique within the chart.
func Key(u *unstructured.Unstructured) string { return u.GetKind() + "/" + u.GetName() }

// Find returns the object of that key, or nil.
func (r *Rendered) Find(key string) *unstructured.Unstructured {
	i := slices.IndexFunc(r.Objects, func(u *unstructured.Unstructured) bool { return Key(u) == key })
	if i < 0 {
		return nil
	}
	return r.Objects[i]
}

// directive returns what a comment "# name: value" at the head of an input says, or "".
func directive(input, name string) string {
	for line := range strings.Lines(input) {
		if !strings.HasPrefix(line, "#") {
			return ""
		}
		if v, ok := strings.CutPrefix(line, "# "+name+": "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
