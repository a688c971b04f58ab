// Package bots tells scripts from people by how a client's requests arrive.
// Of each client it holds its last requests and a count of those before, in
// memory of a fixed size; of all clients a fixed number, the one that was
// seen least recently making room. What it says is a score from 0 to 100,
// which is a guess and never a proof.
//
// Clients are told apart by address, IPv6 ones by their /64, because that is
// what one subscriber gets.
package bots
