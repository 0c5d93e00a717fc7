# Every target is one command; `make help` lists them.
.PHONY: help build demo test test-386 test-arm fuzz soak-front lint bench-edge bench-link cross proto ci

help: ## this list
	@awk -F': ## ' '/^[a-z0-9-]+:.*## / {split($$1, t, ":"); printf "  make %-12s %s\n", t[1], $$2}' $(MAKEFILE_LIST)

build: ## the three binaries, into bin/
	go run ./internal/chores build

demo: ## hub, bad link, edge and sensors; a cut, a kill -9, and the proof (DATA=dir replays recordings)
	go run ./firmware-sim demo $(if $(DATA),--data $(DATA))

test: ## all tests that need only Go
	go run ./internal/chores test

test-386: ## the tests as 32-bit programs (linux/amd64)
	go run ./internal/chores test-386

test-arm: ## the edge's packages and the demo on linux/arm v7 and arm64 (qemu-user-static elsewhere)
	go run ./internal/chores test-arm

fuzz: ## every fuzz test for FUZZTIME (10s)
	FUZZTIME=$(FUZZTIME) go run ./internal/chores fuzz

soak-front: ## honest sensors beside hostile clients, over kills of the edge (MINUTES=n)
	go run ./firmware-sim soak-front --minutes $(or $(MINUTES),5)

lint: ## formatting, vet, staticcheck, protobuf, generated code
	go run ./internal/chores lint

bench-edge: ## durable messages/s at the edge, beside mosquitto where it is installed
	go run ./firmware-sim bench-edge

bench-link: ## bytes per message on the link, beside plain MQTT (DATA=dir measures recordings)
	go run ./firmware-sim bench-link $(if $(DATA),--data $(DATA))

cross: ## cross-compile for the edge's machines and macOS, print sizes
	go run ./internal/chores cross

proto: ## generate the code in proto/
	go run ./internal/chores proto

ci: ## everything CI checks
	go run ./internal/chores ci
