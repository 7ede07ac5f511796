"""The built-in text: four languages and code, and ten short sentences. Written for this project; public domain: CC0."""

from __future__ import annotations

PARAGRAPHS = {
    "English": (
        "The old lighthouse stands at the end of a narrow road, two miles from the village. Every evening, when "
        "the sun goes down behind the hills, its lamp begins to turn, and the fishermen who are still out at sea "
        "know where the harbour is. My grandfather kept that lamp for thirty years. He used to say that the "
        "light was the easy part of the work: the hard part was to wake up in the middle of the night, in the "
        "worst storm of the winter, and climb the two hundred steps again. When he was too old to climb them, "
        "the town bought a machine that does it all by itself. He never went to see it. But on clear nights he "
        "would sit on the bench in front of our house, look at the beam as it passed over the water, and count "
        "the seconds until it came back."
    ),
    "German": (
        "Am Rand der Stadt liegt ein kleiner Garten, in dem seit vielen Jahren niemand mehr arbeitet. Die Bäume "
        "sind groß geworden, und im Sommer ist das Gras so hoch, dass man die alten Wege nicht mehr sieht. Die "
        "Kinder aus der Straße spielen dort trotzdem jeden Nachmittag, denn hinter der Mauer steht ein Haus aus "
        "Holz, das sie selbst gebaut haben. Wenn es regnet, sitzen sie unter dem Dach und erzählen sich "
        "Geschichten. Eines Tages kam ein Mann mit einem Plan und sagte, dass hier bald eine Schule stehen "
        "werde. Zuerst waren alle traurig. Dann fragte das jüngste Kind, ob man die Bäume nicht stehen lassen "
        "könne, und der Mann nahm einen Stift und zeichnete sie in seinen Plan ein."
    ),
    "Spanish": (
        "Cada domingo por la mañana, mi madre iba al mercado antes de que saliera el sol. Decía que a esa hora "
        "la fruta era mejor y que los vendedores todavía tenían ganas de hablar. Compraba naranjas, pan, un poco "
        "de queso y, cuando había, flores amarillas para la mesa. Yo la acompañaba con una bolsa vacía y volvía "
        "con una bolsa que apenas podía levantar. En el camino de regreso nos sentábamos en un banco de la "
        "plaza, partíamos una naranja en dos y mirábamos a la gente que empezaba a abrir sus ventanas. Ahora "
        "vivo lejos, en una ciudad donde nadie conoce mi nombre, pero los domingos me levanto temprano y busco "
        "un mercado."
    ),
    "Chinese": (
        "我家门前有一条小河，河上有一座很老的石桥。小时候，我每天早上都要走过这座桥去上学。春天，河边的柳树发了新芽，水里有许多小鱼；"
        "夏天，大人们坐在桥上乘凉，孩子们在河里游泳；秋天，树叶一片一片地落在水面上；冬天，河水结了冰，我们就在冰上玩。"
        "后来我离开家乡，到北京去读大学，又在那里找到了工作。去年我回到家，发现桥旁边修了一条新的公路，汽车很多，"
        "可是那座石桥还在，桥上还有几位老人在下棋。我站在桥上看了很久，觉得时间过得很快，又好像什么都没有变。"
    ),
    "code": (
        "from collections import Counter\n\n\n"
        "def read_words(path):\n"
        '    """Return the words of a text file in lower case."""\n'
        '    with open(path, encoding="utf-8") as file:\n'
        "        return file.read().lower().split()\n\n\n"
        "def most_common(path, number=10):\n"
        "    counts = Counter(read_words(path))\n"
        "    result = []\n"
        "    for word, count in counts.most_common(number):\n"
        "        if len(word) > 3:\n"
        "            result.append((word, count))\n"
        "    return result\n\n\n"
        'if __name__ == "__main__":\n'
        "    import sys\n\n"
        "    if len(sys.argv) != 2:\n"
        '        print("usage: words.py FILE")\n'
        "        sys.exit(1)\n"
        "    for word, count in most_common(sys.argv[1]):\n"
        '        print(f"{count:6d}  {word}")\n'
    ),
}

SENTENCES = (
    ("The capital of France is", " Paris", ", and the capital of Italy is Rome."),
    ("She opened the door with her", " key", " and went into the house."),
    ("Two plus two is", " four", ", and three plus three is six."),
    ("In winter it is cold, and in summer it is", " hot", "."),
    ("A week has", " seven", " days, and a year has twelve months."),
    ("He drinks a cup of", " coffee", " every morning before work."),
    ("The sun rises in the", " east", " and sets in the west."),
    ("Der Hund bellt, und die", " Katze", " miaut."),
    ("El cielo es", " azul", " y la hierba es verde."),
    ("for i in range(10):\n    ", "print", "(i)\n"),
)
"""(before, what is hidden, behind)."""
