# Targets that only the starter has. The Makefile includes them; a project that `make new` makes is without them.

# With these flags, the benchmark and the contenders that it builds share what is compiled.
BENCH := CGO_ENABLED=0 go run -C bench -trimpath .

.PHONY: new
new: ## make a project of your own: DIR=../app MODULE=github.com/you/app [SERVICE=todo.v1.Todo]
	@$(call dev,new) "$$DIR" "$$MODULE" "$$SERVICE" $(BUF)

.PHONY: ttcurl
ttcurl: ## build bin/ttcurl, which calls the methods of any ttrpc server
	cd tools && go build -o ../bin/ ./ttcurl

.PHONY: bench-quick
bench-quick: ## measure what calls cost here and elsewhere, in two minutes, and print tables of it
	@mkdir -p bin
	@$(BENCH) -o '$(CURDIR)/bin/bench.json'

.PHONY: bench
bench: ## measure everything, in twenty minutes, and write docs/bench/
	@$(BENCH) -suite full -o '$(CURDIR)/docs/bench/results.json' -report

.PHONY: bench-report
bench-report: ## write the pages of docs/bench/ again from docs/bench/results.json
	@$(BENCH) -from '$(CURDIR)/docs/bench/results.json' -report >/dev/null

.PHONY: bench-compare
bench-compare: ## say what changed between two results of the benchmark: OLD=... NEW=...
	@$(BENCH) -compare '$(abspath $(OLD))' '$(abspath $(NEW))'
