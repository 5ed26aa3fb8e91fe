// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/xds"
)

// tokens knows some tokens by heart.
type tokens map[string]Identity

func (k tokens) Authenticate(_ context.Context, token string) (Identity, error) {
	if token == "unreachable" {
		return Identity{}, errors.New("API server is away")
	}
	if who, ok := k[token]; ok {
		return who, nil
	}
	return Identity{}, ErrRefused
}

var known = tokens{
	"web-1":   {User: "system:serviceaccount:shop:default", Namespace: "shop", Pod: "web-1", PodUID: "u1"},
	"web-2":   {User: "system:serviceaccount:shop:default", Namespace: "shop", Pod: "web-2", PodUID: "u2"},
	"stray":   {User: "system:serviceaccount:shop:default", Namespace: "shop", Pod: "stray", PodUID: "u3"},
	"foreign": {User: "system:serviceaccount:evil:default", Namespace: "evil", Pod: "web-1", PodUID: "u4"},
	"unbound": {User: "system:serviceaccount:shop:default", Namespace: "shop"},
	"replica": {User: "system:serviceaccount:headgate-system:headgate", Namespace: "headgate-system", Pod: "headgate-0", PodUID: "u5"},
}

// located finds the pods of web by name alone, so that namespaces must be checked elsewhere.
func located(_ context.Context, who Identity) (Key, error) {
	if who.Pod == "web-1" || who.Pod == "web-2" {
		return webKey, nil
	}
	return Key{}, errors.New("no such pod")
}

func TestWhoIsLetIn(t *testing.T) {
	for name, tc := range map[string]struct {
		authorization string
		want          codes.Code
	}{
		"nobody in particular":                  {"", codes.Unauthenticated},
		"a password":                            {"Basic d2ViOndlYg==", codes.Unauthenticated},
		"an empty token":                        {"Bearer ", codes.Unauthenticated},
		"a token that the API server refuses":   {"Bearer stolen", codes.Unauthenticated},
		"a token that is bound to no pod":       {"Bearer unbound", codes.Unauthenticated},
		"a token while the API server is away":  {"Bearer unreachable", codes.Unavailable},
		"a pod that is not known yet":           {"Bearer stray", codes.Unavailable},
		"a pod of another namespace, same name": {"Bearer foreign", codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, Config{Identify: Tokens(known, LocatorFunc(located))})
			set(t, f.Server, atRest())
			c := f.connect(t, tc.authorization)
			c.ask(xds.Clusters, nil)
			if got := status.Code(<-c.failed); got != tc.want {
				t.Errorf("stream ended with %s, want %s", got, tc.want)
			}
			if a := f.Acks(webKey); len(a) != 0 {
				t.Errorf("counted as connected: %+v", a)
			}
		})
	}
}

func TestAPodIsWhoItsTokenSays(t *testing.T) {
	f := serve(t, Config{Identify: Tokens(known, LocatorFunc(located))})
	set(t, f.Server, atRest())
	c := f.connect(t, "Bearer web-2") // the node in its requests says somebody/else
	c.start(f, atRest())
	if a := f.Acks(webKey); a[0].Pod != "web-2" || a[0].UID != "u2" {
		t.Errorf("acknowledged by %s (%s), want web-2 (u2)", a[0].Pod, a[0].UID)
	}
}

func TestTokenReviews(t *testing.T) {
	good := authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{"headgate"},
		User: authenticationv1.UserInfo{
			Username: "system:serviceaccount:shop:default",
			Extra: map[string]authenticationv1.ExtraValue{
				podNameExtra: {"web-1"}, podUIDExtra: {"u1"},
			},
		},
	}
	for name, tc := range map[string]struct {
		change      func(*authenticationv1.TokenReviewStatus)
		want        Identity
		wantRefused bool
	}{
		"a pod's token": {
			change: func(*authenticationv1.TokenReviewStatus) {},
			want:   Identity{User: "system:serviceaccount:shop:default", Namespace: "shop", Pod: "web-1", PodUID: "u1"},
		},
		"a token that is bound to no pod": {
			change: func(s *authenticationv1.TokenReviewStatus) { s.User.Extra = nil },
			want:   Identity{User: "system:serviceaccount:shop:default", Namespace: "shop"},
		},
		"not authenticated":  {change: func(s *authenticationv1.TokenReviewStatus) { s.Authenticated = false }, wantRefused: true},
		"another audience":   {change: func(s *authenticationv1.TokenReviewStatus) { s.Audiences = []string{"vault"} }, wantRefused: true},
		"no audience at all": {change: func(s *authenticationv1.TokenReviewStatus) { s.Audiences = nil }, wantRefused: true},
		"a person":           {change: func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:admin" }, wantRefused: true},
	} {
		t.Run(name, func(t *testing.T) {
			answer := *good.DeepCopy()
			tc.change(&answer)
			r, _, _ := reviews(answer)
			got, err := r.Authenticate(t.Context(), "token")
			if got != tc.want || errors.Is(err, ErrRefused) != tc.wantRefused || (err != nil) != tc.wantRefused {
				t.Errorf("Authenticate = %+v, %v; want %+v, refused %t", got, err, tc.want, tc.wantRefused)
			}
		})
	}
}

// clock is a time that only tests move.
type clock struct{ time.Time }

// reviewer is an API server that knows one answer, and counts how often it was asked.
type reviewer struct {
	answer authenticationv1.TokenReviewStatus
	asked  int
}

func (r *reviewer) Create(_ context.Context, in *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	r.asked++
	if len(in.Spec.Audiences) != 1 || in.Spec.Audiences[0] != "headgate" {
		return nil, errors.New("asked without the audience")
	}
	if in.Spec.Token == "unreachable" {
		return nil, errors.New("away")
	}
	return &authenticationv1.TokenReview{Status: r.answer}, nil
}

func reviews(answer authenticationv1.TokenReviewStatus) (*TokenReviews, *reviewer, *clock) {
	client, c := &reviewer{answer: answer}, &clock{time.Unix(1e9, 0)}
	return NewTokenReviews(client, "headgate", func() time.Time { return c.Time }), client, c
}

func TestTokenReviewsAreRememberedForAMinute(t *testing.T) {
	good := authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{"headgate"}, User: authenticationv1.UserInfo{Username: "system:serviceaccount:shop:default"},
	}
	for name, tc := range map[string]struct {
		answer authenticationv1.TokenReviewStatus
		after  time.Duration
		want   int
	}{
		"a good token, just before":  {good, goodFor - 1, 1},
		"a good token, a minute on":  {good, goodFor, 2},
		"a bad token, just before":   {authenticationv1.TokenReviewStatus{}, badFor - 1, 1},
		"a bad token, 10 seconds on": {authenticationv1.TokenReviewStatus{}, badFor, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r, client, c := reviews(tc.answer)
			_, first := r.Authenticate(t.Context(), "token")
			c.Time = c.Add(tc.after)
			_, second := r.Authenticate(t.Context(), "token")
			if client.asked != tc.want || (first == nil) != (second == nil) {
				t.Errorf("asked %d times, want %d; errors %v, then %v", client.asked, tc.want, first, second)
			}
		})
	}
}

func TestAnUnreachableAPIServerIsNotRemembered(t *testing.T) {
	r, _, _ := reviews(authenticationv1.TokenReviewStatus{})
	_, err := r.Authenticate(t.Context(), "unreachable")
	if err == nil || errors.Is(err, ErrRefused) || len(r.remembered) != 0 {
		t.Errorf("error %v, %d remembered; want an error that is no refusal, and nothing remembered", err, len(r.remembered))
	}
}
