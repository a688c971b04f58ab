package session_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/middleware/session"
)

func TestASessionEndsWhenIdleAndInAnyCase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, ctx := session.NewMemory(), t.Context()
		k := session.NewKeeper(nil, m, "c", nil)
		find := func(id string) bool {
			t.Helper()
			s, err := k.Find(ctx, session.Client{}, id, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			return s != nil
		}
		begin := func() string {
			id, err := k.Begin(ctx, "", &session.Session{Subject: "a", Ends: time.Now().Add(5 * time.Minute)}, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		idle, busy := begin(), begin()
		for range 5 {
			time.Sleep(59 * time.Second)
			if !find(busy) {
				t.Fatal("a session that is used ended")
			}
		}
		if find(idle) {
			t.Error("an idle session lives on")
		}
		time.Sleep(6 * time.Second)
		if find(busy) {
			t.Error("a session outlives its lifetime")
		}
	})
}

func TestTheSecretCanBeChangedWithoutLoggingAnybodyOut(t *testing.T) {
	secret := []byte(strings.Repeat("a", 32))
	s, err := session.NewSigner(func() []byte { return secret }, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	value, err := s.SignID("c", "id")
	if err != nil {
		t.Fatal(err)
	}
	read := func() string {
		id, err := s.ID("c", value)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	secret = []byte(strings.Repeat("b", 32) + "\n" + strings.Repeat("a", 32))
	if read() != "id" {
		t.Error("the old secret on the second line is not accepted")
	}
	secret = []byte(strings.Repeat("b", 32))
	if read() != "" {
		t.Error("a secret that is gone is accepted")
	}
	if id, _ := s.ID("other", value); id != "" {
		t.Error("a cookie passes under another name")
	}
	secret = nil
	if _, err := s.ID("c", value); err == nil {
		t.Error("without a secret nothing fails")
	}
}

func TestALoginHasTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := session.NewSigner(func() []byte { return []byte(strings.Repeat("s", session.MinSecret)) }, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		value, err := s.SealLogin("c", &session.Login{State: "s"})
		if err != nil || strings.Contains(value, "s\":") {
			t.Fatal(value, err)
		}
		time.Sleep(session.LoginLifetime - time.Second)
		if l, err := s.Login("c", value); l == nil || err != nil {
			t.Errorf("it is gone too early: %v", err)
		}
		time.Sleep(3 * time.Second)
		if l, _ := s.Login("c", value); l != nil {
			t.Error("it still works afterwards")
		}
	})
}
