from tickstock.cli import main

main(prog_name="tickstock")
