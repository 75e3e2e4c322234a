# Targets that only the starter has. The Makefile includes them; a project that `make new` makes is without them.

.PHONY: new
new: ## make a project of your own: DIR=../app MODULE=github.com/you/app [SERVICE=todo.v1.Todo]
	@$(call dev,new) "$$DIR" "$$MODULE" "$$SERVICE" $(BUF)

.PHONY: ttcurl
ttcurl: ## build bin/ttcurl, which calls the methods of any ttrpc server
	cd tools && go build -o ../bin/ ./ttcurl

.PHONY: ttgate
ttgate: ## build bin/ttgate, through which gRPC, Connect and HTTP clients call a ttrpc server
	cd tools && go build -o ../bin/ ./ttgate

.PHONY: scale-demo
scale-demo: ## call three servers through nginx and round_robin, stop one, kill one, and show what came of it
	@cd tools && go run ./scaledemo

.PHONY: bench-quick
bench-quick: ## measure what calls cost here and elsewhere, in two minutes, and print tables of it
	@go run -C bench .

.PHONY: bench
bench: ## measure everything, in a quarter of an hour, and write docs/bench/
	@rm -f docs/bench/results.txt && go run -C bench . -suite full -o ../docs/bench/results.txt && $(MAKE) bench-pages

.PHONY: bench-pages
bench-pages: ## write the pages of docs/bench/ and the READMEs' table again from docs/bench/results.txt
	@go run -C bench . -pages ../docs/bench
