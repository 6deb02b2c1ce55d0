"""The commands of `ore`, one module each, and what they share:

    serve, chat, responses, models, config, doctor     the commands
    options         options that several commands take, and the settings they make
    address         may this host be listened on, is this port free, who has it, and where a server is reached
    conversation    talks to a server by the Responses API
    stored          the stored responses, at a server or in a store that no server has
    screen          where the pieces of an answer are shown
    child           a server in a child process
    progress        progress of downloads

At import they load click and the settings, nothing heavier: `ore --help` pays for every import here.
"""
