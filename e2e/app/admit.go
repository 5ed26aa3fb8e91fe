// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
)

// admission is what the webhook of somebody else makes of Deployments and pods.
type admission struct {
	// from and to: images that begin with from begin with to instead; an empty from changes none.
	from, to string
	// drop: annotations whose keys begin with it are removed; empty: none.
	drop string
}

// runAdmit serves the webhook until ctx ends. Its certificate is in TLS_CERT and TLS_KEY.
func runAdmit(ctx context.Context, args []string) error {
	var a admission
	flags := flag.NewFlagSet("admit", flag.ContinueOnError)
	flags.StringVar(&a.from, "from", "", "rewrite images that begin so")
	flags.StringVar(&a.to, "to", "", "what they begin with then")
	flags.StringVar(&a.drop, "drop", "", "remove annotations whose keys begin so")
	listen := flags.String("listen", ":8443", "address")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pair, err := tls.X509KeyPair([]byte(os.Getenv("TLS_CERT")), []byte(os.Getenv("TLS_KEY")))
	if err != nil {
		return fmt.Errorf("reading TLS_CERT and TLS_KEY: %w", err)
	}
	server := &http.Server{
		Addr: *listen, Handler: a, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}},
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServeTLS("", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the webhook: %w", err)
	}
	return nil
}

// ServeHTTP answers one review.
func (a admission) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
		http.Error(w, fmt.Sprintf("reading the review: %v", err), http.StatusBadRequest)
		return
	}
	patch, err := a.patch(review.Request.Object.Raw)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	kind := admissionv1.PatchTypeJSONPatch
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, Patch: patch, PatchType: &kind}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

type patchOperation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// patch is what to change in a pod, or in whatever has a pod template.
func (a admission) patch(object []byte) ([]byte, error) {
	type container struct{ Image string }
	type podSpec struct{ InitContainers, Containers []container }
	var o struct {
		Metadata struct{ Annotations map[string]string }
		Spec     struct {
			podSpec

			Template *struct{ Spec podSpec }
		}
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return nil, fmt.Errorf("reading the object: %w", err)
	}
	operations := []patchOperation{}
	for key := range o.Metadata.Annotations {
		if a.drop != "" && strings.HasPrefix(key, a.drop) {
			operations = append(operations, patchOperation{Op: "remove", Path: "/metadata/annotations/" + strings.ReplaceAll(key, "/", "~1")})
		}
	}
	spec, path := o.Spec.podSpec, "/spec"
	if o.Spec.Template != nil {
		spec, path = o.Spec.Template.Spec, "/spec/template/spec"
	}
	for list, containers := range map[string][]container{"initContainers": spec.InitContainers, "containers": spec.Containers} {
		for i, c := range containers {
			if rest, ok := strings.CutPrefix(c.Image, a.from); ok && a.from != "" {
				operations = append(operations, patchOperation{"replace", fmt.Sprintf("%s/%s/%d/image", path, list, i), a.to + rest})
			}
		}
	}
	return json.Marshal(operations)
}
