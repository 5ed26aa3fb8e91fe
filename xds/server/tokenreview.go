// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// goodFor is how long an answer is believed: a deleted pod's token works that much longer.
	goodFor = time.Minute
	// badFor spares the API server a client that tries one bad token again and again.
	badFor = 10 * time.Second
	// maxRemembered bounds the memory that strangers' tokens can take.
	maxRemembered = 50000
	// maxReviews bounds how many questions are open at the API server.
	maxReviews = 32

	serviceAccountPrefix = "system:serviceaccount:"
	podNameExtra         = "authentication.kubernetes.io/pod-name"
	podUIDExtra          = "authentication.kubernetes.io/pod-uid"
)

// TokenReviewer is the part of client-go's TokenReviewInterface that is needed. (Importing that would
// put all of client-go into the sidecar's binary.)
type TokenReviewer interface {
	Create(ctx context.Context, review *authenticationv1.TokenReview, options metav1.CreateOptions) (*authenticationv1.TokenReview, error)
}

// TokenReviews asks the API server whose a token is. It implements Authenticator.
type TokenReviews struct {
	client   TokenReviewer
	audience string
	now      func() time.Time
	slots    chan struct{}

	mu         sync.Mutex
	remembered map[[sha256.Size]byte]answer
}

type answer struct {
	who   Identity
	err   error // wraps ErrRefused, or nil
	until time.Time
}

// NewTokenReviews accepts tokens with this audience only. now is the clock; nil is the real one.
func NewTokenReviews(client TokenReviewer, audience string, now func() time.Time) *TokenReviews {
	if now == nil {
		now = time.Now
	}
	return &TokenReviews{
		client: client, audience: audience, now: now,
		slots: make(chan struct{}, maxReviews), remembered: map[[sha256.Size]byte]answer{},
	}
}

// Authenticate answers from memory for up to a minute. Only hashes of tokens are kept.
func (r *TokenReviews) Authenticate(ctx context.Context, token string) (Identity, error) {
	hash := sha256.Sum256([]byte(token))
	r.mu.Lock()
	a, ok := r.remembered[hash]
	r.mu.Unlock()
	if ok && r.now().Before(a.until) {
		return a.who, a.err
	}
	status, err := r.review(ctx, token)
	if err != nil {
		return Identity{}, fmt.Errorf("reviewing token: %w", err)
	}
	a = r.judge(status)
	r.remember(hash, a)
	return a.who, a.err
}

func (r *TokenReviews) review(ctx context.Context, token string) (authenticationv1.TokenReviewStatus, error) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return authenticationv1.TokenReviewStatus{}, ctx.Err()
	}
	out, err := r.client.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{r.audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.TokenReviewStatus{}, err
	}
	return out.Status, nil
}

func (r *TokenReviews) judge(s authenticationv1.TokenReviewStatus) answer {
	refuse := func(why string) answer {
		return answer{err: fmt.Errorf("%w: %s", ErrRefused, why), until: r.now().Add(badFor)}
	}
	if !s.Authenticated {
		return refuse("not authenticated")
	}
	// An API server that knows no audiences answers without any; then nothing was checked.
	if !slices.Contains(s.Audiences, r.audience) {
		return refuse("wrong audience")
	}
	name, ok := strings.CutPrefix(s.User.Username, serviceAccountPrefix)
	namespace, _, found := strings.Cut(name, ":")
	if !ok || !found {
		return refuse("not a service account")
	}
	return answer{
		who: Identity{
			User: s.User.Username, Namespace: namespace,
			Pod: only(s.User.Extra[podNameExtra]), PodUID: only(s.User.Extra[podUIDExtra]),
		},
		until: r.now().Add(goodFor),
	}
}

func only(values authenticationv1.ExtraValue) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

func (r *TokenReviews) remember(hash [sha256.Size]byte, a answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.remembered) >= maxRemembered {
		now := r.now()
		for h, old := range r.remembered {
			if !now.Before(old.until) {
				delete(r.remembered, h)
			}
		}
	}
	if len(r.remembered) < maxRemembered {
		r.remembered[hash] = a
	}
}
